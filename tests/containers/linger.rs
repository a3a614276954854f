//! The end of a container is the end of its network: what slow clients have not taken yet is sent before.

use crate::container::{Container, Run};
use crate::engine::Engine;
use crate::image::image_of;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{Read, Write};
use std::net::TcpStream;

tests![a_slow_client_gets_all_of_it, a_client_that_takes_nothing_is_not_waited_for];

/// Bytes of the body: the kernel takes them from the app at once, and the client, whose buffer is the smallest, does not.
const SIZE: usize = 40 << 10;

/// A server that leaves everything to the kernel, and ends at SIGTERM.
fn serve() -> Container {
    let script = format!(
        "const server = require('node:http').createServer((request, response) => {{
             response.on('close', () => console.log('written'));
             response.setHeader('Connection', 'close');
             response.end('x'.repeat({SIZE}));
         }});
         server.listen(8080, () => console.log('listening'));
         process.on('SIGTERM', () => server.close());"
    );
    let image = image_of(Engine::Docker, "Dockerfile.example", "example");
    let mut server = Run::of(Engine::Docker, image).command(["node", "-e", &script]).start();
    server.line("listening");
    server
}

/// Asks, takes nothing, and has the server stopped when it has nothing more to do.
fn ask(server: &mut Container) -> TcpStream {
    let address = server.inspect("{{.NetworkSettings.IPAddress}}");
    let mut client = TcpStream::connect((address.as_str(), 8080)).expect("the server listens");
    setsockopt(&client, sockopt::RcvBuf, &1).expect("a socket");
    client.set_read_timeout(Some(crate::common::DEADLINE)).expect("a timeout");
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("the server listens");
    server.line("written");
    server.kill("TERM");
    server.event("exit");
    client
}

fn a_slow_client_gets_all_of_it() {
    let mut server = serve();
    let mut client = ask(&mut server);
    let mut response = Vec::new();
    client.read_to_end(&mut response).expect("an end in order");
    let body = response.windows(4).position(|part| part == b"\r\n\r\n").expect("a head") + 4;
    assert_eq!(response.len() - body, SIZE, "{}", server.transcript());
    assert_eq!(server.code(), 0);
    assert!(server.said("unsent").is_empty());
}

fn a_client_that_takes_nothing_is_not_waited_for() {
    let mut server = serve();
    let _client = ask(&mut server);
    assert_eq!(server.code(), 0, "its drain went well");
    let unsent = server.said("unsent").pop().expect("what was lost").line;
    assert!(unsent.contains("connections=1 bytes="), "{unsent}");
}
