use super::*;
use crate::doors::control::{Client, Control};
use crate::doors::{Door, Message};
use crate::sys::socket::{DatagramSocket, Head, wait_readable};
use std::thread;

/// Long, since machines are busy, and never waited out where all is well.
const LONG: Duration = Duration::from_secs(20);

/// For what is not to come.
const SHORT: Option<Duration> = Some(Duration::from_millis(50));

/// A namespace that nobody has: inodes of the kernel's are above 0xefff0000.
fn namespace(test: u64) -> u64 {
    u64::from(std::process::id()) * 100 + 50 + test
}

/// The client of the next request, which is to be this one.
fn next(control: &mut Control, expected: Request) -> Client {
    assert!(wait_readable(&[control.descriptor()], LONG).expect("a wait"), "a request");
    match control.receive().messages.pop() {
        Some(Message::Request(request, client)) if request == expected => client,
        other => panic!("{other:?}"),
    }
}

/// What the client says to a guard that gives these replies to its first request.
fn talk(test: u64, request: Request, timeout: Option<Duration>, replies: Vec<Reply>) -> Result<Answer, String> {
    let mut control = Control::open_for(namespace(test)).expect("a socket");
    thread::scope(|scope| {
        scope.spawn(|| {
            let client = next(&mut control, request);
            replies.iter().for_each(|reply| _ = control.answer(&client, reply));
        });
        let options = Options { timeout, ..Options::default() };
        ask_in(namespace(test), request, &options).map_err(|error| {
            let code = if error.is::<NoAnswer>() { NO_ANSWER } else { 125 };
            format!("{code}: {error}")
        })
    })
}

fn answer(text: &str, code: u8) -> Result<Answer, String> {
    Ok(Answer { text: text.to_owned(), code })
}

#[test]
fn the_first_word_decides() {
    for (reply, expected) in [
        (Reply::Yes("ready".to_owned()), answer("ready\n", 0)),
        (Reply::No("not ready: draining".to_owned()), answer("not ready: draining\n", 1)),
        (Reply::Text("a\nb\n".to_owned()), answer("a\nb\n", 0)),
        (Reply::Refused("only root may".to_owned()), Err("125: only root may".to_owned())),
    ] {
        assert_eq!(talk(1, Request::Ready, Some(LONG), vec![reply]), expected);
    }
}

#[test]
fn an_outcome_is_waited_for() {
    let replies = vec![Reply::Wait(Some(LONG)), Reply::Yes("stopped: exit code 0".to_owned())];
    assert_eq!(talk(2, Request::Stop, None, replies), answer("stopped: exit code 0\n", 0));
    let replies = vec![Reply::Wait(None), Reply::No("the new run has failed".to_owned())];
    assert_eq!(talk(2, Request::Restart, None, replies), answer("the new run has failed\n", 1));
    // A timeout of one's own is not extended.
    let late = talk(2, Request::Stop, SHORT, vec![Reply::Wait(Some(LONG))]);
    assert_eq!(late, Err("124: guard has not answered in time".to_owned()));
}

#[test]
fn silence_is_no_answer() {
    let silence = talk(3, Request::Health, SHORT, Vec::new());
    assert_eq!(silence, Err("124: guard has not answered in time".to_owned()));
}

#[test]
fn where_there_is_no_guard_it_says_so() {
    let error = ask_in(namespace(4), Request::Ready, &Options::default()).expect_err("nobody");
    let name = format!("no guard is running here: looked for @guard/{} in /proc/net/unix", namespace(4));
    assert!(error.to_string().starts_with(&name) && !error.is::<NoAnswer>(), "{error}");
}

#[test]
fn one_of_several_is_chosen() {
    let mut guards = [(); 2].map(|()| Control::open_for(namespace(5)).expect("a socket"));
    let _silent = Control::open_for(namespace(5)).expect("a third name");
    let own = process::id();
    let who = format!("{own} node server.js");
    // Both have got their ping before one answers.
    let pinged = |guards: &mut [Control; 2]| {
        let clients: Vec<Client> = guards.iter_mut().map(|guard| next(guard, Request::Ping)).collect();
        guards.iter().zip(clients).for_each(|(guard, client)| _ = guard.answer(&client, &Reply::Yes(who.clone())));
    };
    let ask = |pid| {
        let options = Options { pid, ..Options::default() };
        ask_in(namespace(5), Request::Ready, &options).map_err(|error| error.to_string())
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            pinged(&mut guards);
            pinged(&mut guards);
            pinged(&mut guards);
            // Either of them may be the first.
            let descriptors = guards.each_ref().map(Control::descriptor);
            assert!(wait_readable(&descriptors, LONG).expect("a wait"), "a request");
            let messages = guards.iter_mut().map(|guard| guard.receive().messages.pop());
            let (index, message) = messages.enumerate().find(|(_, message)| message.is_some()).expect("a request");
            let Some(Message::Request(Request::Ready, client)) = message else { panic!("{message:?}") };
            guards[index].answer(&client, &Reply::Yes("ready".to_owned()));
        });
        let one = format!("\n  --pid {own}  node server.js");
        assert_eq!(ask(None), Err(format!("more than one guard is running here; say which:{one}{one}")));
        // The silent one may be meant.
        let other = own + 1;
        let late = format!("no guard of pid {other} has answered in time; there is{one}{one}");
        assert_eq!(ask(Some(other)), Err(late));
        // In a test all have the same pid, and the first to answer is taken.
        assert_eq!(ask(Some(own)), answer("ready\n", 0));
    });
}

/// A socket with a guard's name, and an address of its client.
fn name_and_client(test: u64) -> (DatagramSocket, thread::JoinHandle<Result<Answer, String>>) {
    let name = wire::name(namespace(test), 1);
    let guard = DatagramSocket::bind(&Address::abstract_name(name.as_bytes()).expect("an address")).expect("a socket");
    let ask = move || {
        let options = Options { timeout: Some(LONG), ..Options::default() };
        ask_in(namespace(test), Request::Ready, &options).map_err(|error| error.to_string())
    };
    #[expect(clippy::disallowed_methods, reason = "the client of a test")]
    let client = thread::spawn(ask);
    assert!(wait_readable(&[guard.as_fd()], LONG).expect("a wait"));
    (guard, client)
}

fn sender(guard: &DatagramSocket) -> Address {
    let Ok(Head::Datagram(datagram)) = guard.peek(1024) else { panic!("no request") };
    guard.discard();
    datagram.sender.expect("an address")
}

#[test]
fn only_the_guard_that_was_asked_can_answer() {
    let (guard, client) = name_and_client(6);
    let stranger = DatagramSocket::bind_anew().expect("a socket");
    let address = sender(&guard);
    let refused = stranger.send(b"yes forged", &address).expect_err("it is connected to another");
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    guard.send(b"what", &address).expect("a receiver");
    guard.send(b"no really", &address).expect("a receiver");
    assert_eq!(client.join().expect("an end"), answer("really\n", 1));
}

#[test]
fn a_guard_that_closes_its_socket_cannot_answer() {
    let (guard, client) = name_and_client(7);
    let address = sender(&guard);
    guard.send(b"wait none", &address).expect("a receiver");
    drop(guard);
    let again =
        DatagramSocket::bind(&Address::abstract_name(wire::name(namespace(7), 1).as_bytes()).expect("an address"))
            .expect("the name is free");
    assert!(again.send(b"yes forged", &address).is_err(), "the client is connected to the socket, not to its name");
    drop(client);
}

#[test]
fn sockets_are_found_by_the_namespace_in_their_name() {
    let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
        0000000000000000: 00000002 00000000 00000000 0002 01 100 @guard/42\n\
        0000000000000000: 00000002 00000000 00000000 0002 01 101 @guard/42/3\n\
        0000000000000000: 00000002 00000000 00000000 0002 01 101 @guard/42/3\n\
        0000000000000000: 00000002 00000000 00000000 0002 01 102 @guard/421\n\
        0000000000000000: 00000002 00000000 00000000 0002 01 103 @guard/42/17\n\
        0000000000000000: 00000002 00000000 00000000 0002 01 104 /run/@guard/42/2\n\
        0000000000000000: 00000003 00000000 00000000 0001 03 105\n\
        0000000000000000: 00000002 00000000 00000000 0002 01 106 @guard/42/2x\xff\n";
    assert_eq!(names_in(table, 42), ["guard/42", "guard/42/3"]);
    assert_eq!(names_in(table, 7), Vec::<String>::new());
    assert_eq!(names_in(b"", 42), Vec::<String>::new());
}
