//! guard: the init process for containers.
//!
//! `start` parses, sets up, runs, and turns the outcome into an exit code. All errors end here. The C library's `main` in
//! `sys::early` calls it.

#![cfg_attr(not(test), no_main)]

mod cli;
mod config;
mod doors;
mod platform;
mod report;
mod runtime;
mod shell;
mod signal;
mod supervisor;
mod sys;
mod text;

use config::Config;
use config::layers::Layers;
use config::subcommands::{ClientCommand, Invocation};
use std::ffi::OsString;
use std::io::Write;

#[cfg_attr(test, expect(dead_code, reason = "the unit tests have a main of their own"))]
fn start(arguments: Vec<OsString>) -> u8 {
    let (invocation, mut layers) = Layers::new(arguments, &sys::process::environment());
    if invocation == Invocation::Run {
        cli::itself::take_the_place(&layers);
    } else {
        sys::early::unblock_signals();
    }
    layers.stdin = sys::stdin::feeder();
    let is_below = layers.is_below_a_guard();
    let outcome = match invocation {
        Invocation::Help(subcommand) => print(&cli::help::page(subcommand)),
        Invocation::Version => print(&cli::help::version()),
        Invocation::Check => Config::resolve(layers)
            .map_err(Into::into)
            .and_then(|config| print(&cli::check::text(&config, runtime::doubts(&config), is_below))),
        Invocation::Ask(command) => {
            cli::ask::run(command, &layers.words).and_then(|answer| match print(&answer.text) {
                // The other commands answer by their exit code, which counts though nobody reads the text.
                Err(error) if command == ClientCommand::Status => Err(error),
                _ => Ok(answer.code),
            })
        }
        Invocation::Probe => cli::probe::run(&layers.words).map(|()| 0),
        Invocation::Run => run(layers),
    };
    outcome.unwrap_or_else(|error| {
        report::print_error(&format!("{error:#}"));
        if error.is::<cli::ask::NoAnswer>() {
            cli::ask::NO_ANSWER
        } else if error.is::<cli::probe::Failed>() {
            cli::probe::FAILED
        } else {
            supervisor::OWN_ERROR
        }
    })
}

/// Runs the app. An error before that goes to the termination log, too.
fn run(layers: Layers) -> anyhow::Result<u8> {
    let mut config = Config::resolve(layers).inspect_err(|errors| {
        report::write_last_word(errors.termination_log.as_deref(), supervisor::OWN_ERROR, &errors.to_string());
    })?;
    if let Some(left) = sys::directory::leave() {
        config.resolve_paths(&left);
    }
    report::init(&config);
    runtime::run(&config).inspect_err(|error| {
        report::write_last_word(config.termination_log.as_deref(), supervisor::OWN_ERROR, &format!("{error:#}"));
    })
}

/// Writes to stdout. Nothing else does, since stdout belongs to the app. The caller keeps text of unknown origin on one
/// line (`text::printable`); all other control characters are escaped here.
fn print(text: &str) -> anyhow::Result<u8> {
    let mut stdout = std::io::stdout();
    stdout.write_all(text::printable_lines(text).as_bytes())?;
    stdout.flush()?;
    Ok(0)
}
