//! A container that was started, with what it says; it is gone when the test is done with it.

use crate::common::{Answer, Event, Guard, Setup, child, eventually, in_path};
use crate::engine::Engine;
use crate::image::{context, image};
use std::ops::{Deref, DerefMut};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

/// How a container is to be run: `docker run OPTIONS IMAGE COMMAND`.
pub(crate) struct Run {
    engine: Engine,
    image: String,
    options: Vec<String>,
    command: Vec<String>,
    /// Variables of the client's own environment.
    client: Vec<(String, String)>,
    terminal: bool,
}

/// The fixture behind guard, under Docker.
pub(crate) fn docker() -> Run {
    Run::of(Engine::Docker, image(Engine::Docker, "fixture"))
}

/// The fixture behind guard, under Podman.
pub(crate) fn podman() -> Run {
    Run::of(Engine::Podman, image(Engine::Podman, "fixture"))
}

impl Run {
    pub(crate) fn of(engine: Engine, image: String) -> Run {
        Run { engine, image, options: Vec::new(), command: Vec::new(), client: Vec::new(), terminal: false }
    }

    /// Options of the engine's, divided by spaces.
    pub(crate) fn options(mut self, words: &str) -> Run {
        self.options.extend(words.split_whitespace().map(str::to_owned));
        self
    }

    /// An option whose value may have spaces.
    pub(crate) fn option(mut self, name: &str, value: &str) -> Run {
        self.options.extend([name.to_owned(), value.to_owned()]);
        self
    }

    pub(crate) fn env(self, name: &str, value: &str) -> Run {
        self.option("--env", &format!("{name}={value}"))
    }

    /// A variable of the client's own environment, of which the container hears nothing.
    pub(crate) fn client_env(mut self, name: &str, value: &str) -> Run {
        self.client.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What replaces the image's CMD.
    pub(crate) fn command<T: Into<String>>(mut self, words: impl IntoIterator<Item = T>) -> Run {
        self.command = words.into_iter().map(Into::into).collect();
        self
    }

    /// The fixture with words divided by spaces; tests/fixture/app.rs lists them.
    pub(crate) fn fixture(self, words: &str) -> Run {
        self.command(["fixture"].into_iter().chain(words.split_whitespace()))
    }

    /// `--interactive --tty`, at a terminal that the test has.
    pub(crate) fn terminal(mut self) -> Run {
        self.terminal = true;
        self.options("--interactive --tty")
    }

    /// Runs it, with the client in the foreground: its lines are the container's, and so is its exit code.
    pub(crate) fn start(self) -> Container {
        let (engine, name, own, terminal) = (self.engine, unique(), self.client.clone(), self.terminal);
        let client = setup(engine, self.line(&["run", "--name", &name]), own);
        let client = if terminal { client.terminal().start() } else { client.start() };
        Container { engine, name, client }
    }

    /// Runs it in the background, where it may end and begin again; see [`Container::log`] for its lines.
    pub(crate) fn start_detached(self) -> Container {
        let (engine, name, own) = (self.engine, unique(), self.client.clone());
        let client = setup(engine, self.line(&["run", "--detach", "--name", &name]), own).start();
        let mut container = Container { engine, name, client };
        assert_eq!(container.code(), 0, "{}", container.transcript());
        container
    }

    fn line(self, first: &[&str]) -> Vec<String> {
        let first = first.iter().map(|word| (*word).to_owned());
        first.chain(self.options).chain([self.image]).chain(self.command).collect()
    }
}

/// A name for a container.
fn unique() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("guard-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The engine's client as a process whose lines can be waited for.
pub(crate) fn client(engine: Engine, words: Vec<String>, terminal: bool, stdin: Stdio) -> Guard {
    let setup = setup(engine, words, Vec::new()).stdin(stdin);
    if terminal { setup.terminal().start() } else { setup.start() }
}

/// The engine's client with variables of its own.
fn setup(engine: Engine, words: Vec<String>, own: Vec<(String, String)>) -> Setup {
    let program = in_path(engine.program()).expect("an engine that answers has a client");
    // Podman's monitor leaves a file `oom` where Podman was called, when a container is out of memory.
    let mut setup = child().program(program).options(words).directory(context());
    for (name, value) in std::env::vars_os() {
        setup = setup.env(name, value);
    }
    for (name, value) in own {
        setup = setup.env(name, value);
    }
    setup
}

/// A container. What it says is what its client prints.
pub(crate) struct Container {
    pub(crate) engine: Engine,
    pub(crate) name: String,
    client: Guard,
}

impl Deref for Container {
    type Target = Guard;

    fn deref(&self) -> &Guard {
        &self.client
    }
}

impl DerefMut for Container {
    fn deref_mut(&mut self) -> &mut Guard {
        &mut self.client
    }
}

impl Container {
    /// One that something else has started: its lines are those of its log.
    pub(crate) fn existing(engine: Engine, name: &str) -> Container {
        let client = client(engine, ["logs", "--follow", name].map(str::to_owned).into(), false, Stdio::null());
        Container { engine, name: name.to_owned(), client }
    }

    /// A command about this container, `stop --time 3` say.
    pub(crate) fn tell(&self, words: &str) -> String {
        let words: Vec<&str> = words.split_whitespace().chain([self.name.as_str()]).collect();
        self.engine.tell(&words)
    }

    /// Runs a command in it, as `docker exec` does.
    pub(crate) fn exec(&self, words: &[&str]) -> Answer {
        self.engine.ask(&[&["exec", &self.name], words].concat())
    }

    /// Asks its guard.
    pub(crate) fn ask(&self, words: &[&str]) -> Answer {
        self.exec(&[&["guard"], words].concat())
    }

    /// Asks its guard until the answer is yes.
    pub(crate) fn until_yes(&self, words: &[&str]) -> Answer {
        eventually(&format!("yes to {words:?}"), || Some(self.ask(words)).filter(|answer| answer.code == 0))
    }

    /// Sends its PID 1 a signal by name.
    pub(crate) fn kill(&self, signal: &str) {
        self.tell(&format!("kill --signal {signal}"));
    }

    /// What the engine knows of it, by a template such as `{{.State.ExitCode}}`.
    pub(crate) fn inspect(&self, template: &str) -> String {
        self.engine.tell(&["inspect", "--format", template, &self.name])
    }

    /// Waits until the engine says this of it.
    pub(crate) fn until(&self, template: &str, value: &str) {
        let ask = || self.engine.ask(&["inspect", "--format", template, &self.name]);
        eventually(&format!("{template} {value}"), || (ask().out.trim_end() == value).then_some(()));
    }

    /// Follows the log from here on, with a client that stays whatever becomes of the container's streams.
    pub(crate) fn log(&self) -> Guard {
        client(self.engine, ["logs", "--follow", &self.name].map(str::to_owned).into(), false, Stdio::null())
    }

    /// A session of `docker exec --interactive`, with a pipe as its stdin.
    pub(crate) fn session(&self, words: &[&str]) -> Guard {
        let line = [&["exec", "--interactive", &self.name], words].concat();
        client(self.engine, line.into_iter().map(str::to_owned).collect(), false, Stdio::piped())
    }

    /// The events of guard's log so far that bear this name.
    pub(crate) fn said(&self, name: &str) -> Vec<Event> {
        self.events().into_iter().filter(|event| event.name() == name).collect()
    }

    /// The names of all events of guard's log so far.
    pub(crate) fn names(&self) -> Vec<String> {
        self.events().iter().map(|event| event.name().to_owned()).collect()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.engine.ask(&["rm", "--force", "--volumes", &self.name]);
    }
}
