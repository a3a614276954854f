use super::{crash, ended_by_itself, say, server, stop};
use crate::common::Guard;
use crate::container::{Container, Run, client};
use crate::engine::Engine;
use crate::image::image;

use std::process::Stdio;

tests![
    a_crash_leaves_its_socket_free,
    quit_finishes_requests_where_it_is_given_time,
    quit_alone_cuts_requests_off,
    term_cuts_requests_off,
];

/// Its socket is in a volume, as a web server's container would have it. It says itself when it is ready.
fn php_fpm(run: Run) -> Container {
    let mut php = run.options("--volume /run/php").env("GUARD_READY", "notify").start();
    php.event("ready");
    php
}

fn as_it_comes(run: Run) -> Container {
    php_fpm(run.command(["php-fpm8.2", "--nodaemonize", "--force-stderr"]))
}

fn with_time(run: Run) -> Container {
    php_fpm(run.command(["php-fpm8.2", "--nodaemonize", "--force-stderr", "--fpm-config", "/etc/php/drain.conf"]))
}

/// A request that is begun, and that ends with the line that is typed into it. Its client is in another container.
fn request(php: &Container) -> Guard {
    let options = format!(
        "run --rm --interactive --volumes-from {} --env SCRIPT_FILENAME=/var/www/html/echo.php \
         --env REQUEST_METHOD=PUT --env CONTENT_LENGTH=6 --entrypoint cgi-fcgi {} -bind -connect \
         /run/php/php8.2-fpm.sock",
        php.name,
        image(Engine::Docker, "servers")
    );
    let mut request =
        client(Engine::Docker, options.split_whitespace().map(str::to_owned).collect(), false, Stdio::piped());
    request.line("begun");
    request
}

/// The request gets its last line, and its client has heard all there was to hear.
fn is_whole(mut request: Guard) {
    say(&mut request, "whole");
    request.line("whole");
    assert_eq!(request.code(), 0);
}

/// Its client has heard nothing more than the beginning, and that it was not all.
fn is_cut_off(mut request: Guard) {
    assert_ne!(request.code(), 0);
    assert_eq!(request.out().last(), Some(&"begun"));
}

fn a_crash_leaves_its_socket_free() {
    let mut php = as_it_comes(server());
    let under_way = request(&php);
    crash(&mut php);
    drop(under_way);
    assert_eq!(php.event("ready").get("run"), Some("2"));
    is_whole(request(&php));
}

fn quit_finishes_requests_where_it_is_given_time() {
    let mut php = with_time(server().env("GUARD_STOP_SIGNAL", "QUIT"));
    let under_way = request(&php);
    stop(&mut php, "SIGQUIT", |_| is_whole(under_way));
    ended_by_itself(&mut php, 0);
}

fn quit_alone_cuts_requests_off() {
    let mut php = as_it_comes(server().env("GUARD_STOP_SIGNAL", "QUIT"));
    let under_way = request(&php);
    stop(&mut php, "SIGQUIT", |_| is_cut_off(under_way));
    ended_by_itself(&mut php, 0);
}

fn term_cuts_requests_off() {
    let mut php = with_time(server());
    let under_way = request(&php);
    stop(&mut php, "SIGTERM", |_| is_cut_off(under_way));
    ended_by_itself(&mut php, 0);
}
