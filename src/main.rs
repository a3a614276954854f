//! guard: the init process that every container should have had.
//!
//! Parses, sets up, runs, and turns the outcome into an exit code: the one place where errors end.

mod cli;
mod config;
mod doors;
mod platform;
mod report;
mod runtime;
mod signal;
mod supervisor;
mod sys;
mod text;

use config::Config;
use config::layers::{Layers, Mode, Verb};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let (mode, layers) = Layers::from_process(&sys::process::environment());
    if mode != Mode::Run {
        sys::early::unblock_signals();
    }
    let outcome = match mode {
        Mode::Help => print(&cli::help::text()),
        Mode::Version => print(&cli::help::version()),
        Mode::Check => Config::resolve(layers).map_err(Into::into).and_then(|config| print(&cli::check::text(&config))),
        Mode::Ask(verb) => cli::ask::run(verb, &layers.words).and_then(|answer| match print(&answer.text) {
            // Elsewhere the code says it all where nobody reads the text.
            Err(error) if verb == Verb::Status => Err(error),
            _ => Ok(answer.code),
        }),
        Mode::Probe => cli::probe::run(&layers.words).map(|()| 0),
        Mode::Run => run(layers),
    };
    let code = outcome.unwrap_or_else(|error| {
        report::complain(&format!("{error:#}"));
        match () {
            () if error.is::<cli::ask::NoAnswer>() => cli::ask::NO_ANSWER,
            () if error.is::<cli::probe::Failed>() => cli::probe::FAILED,
            () => supervisor::OWN_ERROR,
        }
    });
    ExitCode::from(code)
}

/// Runs the app. What keeps guard from that is its last word too.
fn run(layers: Layers) -> anyhow::Result<u8> {
    let mut config = Config::resolve(layers).inspect_err(|errors| {
        report::say_last(errors.termination_log.as_deref(), supervisor::OWN_ERROR, &errors.to_string());
    })?;
    if let Some(left) = sys::directory::leave() {
        config.resolve_paths(&left);
    }
    report::init(&config);
    runtime::run(&config).inspect_err(|error| {
        report::say_last(config.termination_log.as_deref(), supervisor::OWN_ERROR, &format!("{error:#}"));
    })
}

/// Writes to stdout, which nothing else does: it is the app's. Text of unknown origin in it has been made one line before;
/// what else could control the terminal is escaped here.
fn print(text: &str) -> anyhow::Result<u8> {
    std::io::stdout().write_all(text::printable_lines(text).as_bytes())?;
    Ok(0)
}
