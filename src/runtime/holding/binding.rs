//! Answers to bind(2) of processes that have the filter of GUARD_HOLD.

use super::{Caught, Holding, Key, MOST_ADDRESSES, MOST_SOCKETS, ROOM_RETRY};
use crate::config::Hold as Ports;
use crate::doors::hold::Bind;
use crate::runtime::pool::Pool;
use crate::supervisor::{RunId, Timestamp};
use crate::sys::errno::is_shortage;
use crate::sys::poll::Poll;
use crate::sys::seccomp::{Answer, Question};
use crate::sys::{Errno, caller, listen, spread};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

impl Holding {
    /// Answers a bind(2): the app's socket becomes a duplicate of the one that the run gets.
    pub(in crate::runtime) fn bind(
        &mut self,
        run: RunId,
        question: &Question,
        bind: &Bind,
        now: Timestamp,
        poll: &Poll,
    ) -> Answer {
        if let Some(answer) = self.answer_without_pool(run, question, bind, poll) {
            return answer;
        }
        if self.is_released {
            // A run that ends may have the address still, and shares it.
            return bind_beside(bind).map_or(Answer::GoOn, |socket| {
                listen::set_waiting(socket.as_fd(), bind.waits);
                self.replace(run, question, bind, socket.as_fd())
            });
        }
        let found = match self.pool_of(Key::of(bind), poll) {
            Some(index) => self.join(index, run, bind, now.after(self.timeout), poll),
            None => self.catch(run, bind, now, poll),
        };
        let index = match found {
            Ok(index) => index,
            Err(answer) => return answer,
        };
        let pool = &self.caught[index].pool;
        let answer = pool.of(run).map_or(Answer::GoOn, |socket| {
            // All duplicates share this, and a run that listens already has it as it wants it.
            if !bind.waits || !pool.is_shared(run) {
                listen::set_waiting(socket, bind.waits);
            }
            self.replace(run, question, bind, socket)
        });
        if answer != Answer::Done {
            self.caught[index].pool.abandon(run, poll);
            self.forget_empty();
            self.let_go_of_port(run, question, bind, poll);
        }
        answer
    }

    /// The answer to a bind of what guard does not hold, or has bound already.
    fn answer_without_pool(&mut self, run: RunId, question: &Question, bind: &Bind, poll: &Poll) -> Option<Answer> {
        let key = Key::of(bind);
        let port = key.address.port();
        if !self.ports.contains(port) {
            let is_named = self.caught.is_empty() && port != 0 && matches!(self.ports, Ports::These(_));
            if is_named && !std::mem::replace(&mut self.refusal_logged, true) {
                log::info!(address:% = key.address, msg = "GUARD_HOLD names other ports"; "not-held");
            }
            return Some(Answer::GoOn);
        }
        if let Some(caught) = self.caught.iter().find(|caught| caught.pool.has(bind.socket.inode)) {
            // A signal has interrupted the bind after guard did its part, and it is tried again.
            return Some(if caught.key == key { Answer::Done } else { Answer::GoOn });
        }
        if bind.polled {
            if !std::mem::replace(&mut self.polled, true) {
                log::warn!(address:% = key.address, msg = "GUARD_HOLD: the app polls its socket before it binds it, and would miss clients; it binds as ever"; "not-held");
            }
            self.let_go_of_port(run, question, bind, poll);
            return Some(Answer::GoOn);
        }
        match caller::shares_network(question.caller) {
            Ok(shares) => (!shares || !caller::may_bind(question.caller, port)).then_some(Answer::GoOn),
            Err(error) => {
                if self.is_waiting(run, question) {
                    self.note_unheld(error);
                }
                self.let_go_of_port(run, question, bind, poll);
                Some(Answer::GoOn)
            }
        }
    }

    /// Who asks is about to bind as ever, if it still waits. Clients that wait at other ports wait on.
    fn let_go_of_port(&mut self, run: RunId, question: &Question, bind: &Bind, poll: &Poll) {
        if self.is_waiting(run, question) {
            self.let_go_where(|caught| caught.key.address.port() == bind.address.port(), poll);
        }
    }

    /// A run gets a socket of a pool that there is: a free one, one of its own, or where none can be made another run's. Returns
    /// the pool's index; the error is the answer.
    fn join(&mut self, index: usize, run: RunId, bind: &Bind, until: Timestamp, poll: &Poll) -> Result<usize, Answer> {
        let count: usize = self.caught.iter().map(|caught| caught.pool.len()).sum();
        let pool = &self.caught[index].pool;
        if pool.of(run).is_none() && pool.has_predecessor_of(run) {
            // A run that is being replaced may have closed this before the new one listens here, and clients wait.
            let closed = self.closed();
            self.caught[index].pool.leave_closed(run, &closed, until);
        }
        let Caught { pool, owner, .. } = &mut self.caught[index];
        if *owner != bind.socket.owner && pool.is_served() {
            // A worker without privileges is not to take the clients of the app that it belongs to.
            return Err(Answer::Failed(Errno::EADDRINUSE));
        }
        *owner = bind.socket.owner;
        if !pool.take(run) {
            let made = if count < MOST_SOCKETS { bind_beside(bind) } else { Err(Errno::EMFILE) };
            match made.and_then(listen::spare).and_then(|socket| pool.add(socket, run, poll)) {
                Ok(()) => {}
                Err(_) => pool.share(run),
            }
        }
        Ok(index)
    }

    /// The first socket of an address. Returns the index of its pool; the error is the answer.
    fn catch(&mut self, run: RunId, bind: &Bind, now: Timestamp, poll: &Poll) -> Result<usize, Answer> {
        if self.caught.len() >= MOST_ADDRESSES && !self.make_room(now, poll) {
            if !std::mem::replace(&mut self.crowd_logged, true) {
                let msg = "GUARD_HOLD: the app has bound 1024 other addresses, and binds this one as ever";
                log::warn!(address:% = bind.address, msg; "not-held");
            }
            return Err(Answer::GoOn);
        }
        // What guard cannot do for other reasons the app may.
        const ITS_OWN: [Errno; 3] = [Errno::EADDRINUSE, Errno::EADDRNOTAVAIL, Errno::EACCES];
        let key = Key::of(bind);
        // A port of which others share the address is in use all the same.
        let bind_it = || listen::bind_as(key.address, key.only_v6, &|socket| bind.options.give_to(socket));
        let socket = match bind_it() {
            // An address of an earlier run's, or one that the app has tried before, may overlap with this one.
            Err(Errno::EADDRINUSE) if self.close_unused(key.address.port(), poll) => bind_it(),
            result => result,
        };
        let mut pool = Pool::new(None, true);
        let added = socket.and_then(listen::spare).and_then(|socket| {
            spread::share_address(socket.as_fd(), true);
            pool.add(socket, run, poll)
        });
        match added {
            Ok(()) => {}
            Err(error) if ITS_OWN.contains(&error) => return Err(Answer::Failed(error)),
            Err(error) => {
                if is_shortage(error) {
                    self.note_unheld(error);
                }
                return Err(Answer::GoOn);
            }
        }
        self.caught.push(Caught { key, pool, owner: bind.socket.owner, is_logged: false });
        Ok(self.caught.len() - 1)
    }

    /// Lets go of an address that refuses clients, or else of those that no process has open any more. The search for these takes time.
    fn make_room(&mut self, now: Timestamp, poll: &Poll) -> bool {
        if let Some(refusing) = self.caught.iter().position(|caught| caught.pool.refusing) {
            self.caught.remove(refusing).pool.close(poll);
        } else if self.room_sought_at.is_none_or(|sought| now.since(sought) >= ROOM_RETRY) {
            self.room_sought_at = Some(now);
            let closed = self.closed();
            let is_closed = |caught: &mut Caught| caught.pool.free_until().is_none() && caught.pool.is_unused(&closed);
            self.caught.extract_if(.., is_closed).for_each(|caught| caught.pool.close(poll));
        }
        self.caught.len() < MOST_ADDRESSES
    }

    /// Closes what no process has open of a port; `false` if there is nothing of the kind.
    fn close_unused(&mut self, port: u16, poll: &Poll) -> bool {
        let before = self.caught.len();
        let is_of_port = |caught: &Caught| caught.key.address.port() == port;
        if !self.caught.iter().any(is_of_port) {
            return false;
        }
        let closed = self.closed();
        let is_unused = |caught: &mut Caught| is_of_port(caught) && caught.pool.is_unused(&closed);
        self.caught.extract_if(.., is_unused).for_each(|caught| caught.pool.close(poll));
        self.caught.len() < before
    }

    /// The pool of an address, without what clients have bound and connected.
    fn pool_of(&mut self, key: Key, poll: &Poll) -> Option<usize> {
        let index = self.caught.iter().position(|caught| caught.key == key)?;
        let pool = &mut self.caught[index].pool;
        pool.let_clients_go(poll);
        let is_empty = pool.len() == 0;
        if is_empty {
            self.caught.remove(index);
        }
        (!is_empty).then_some(index)
    }

    /// Puts a duplicate of a socket in the place of the app's. Fails where who asked is gone, or the kernel is older than 5.9.
    fn replace(&self, run: RunId, question: &Question, bind: &Bind, socket: BorrowedFd) -> Answer {
        let replaced = self.door(run).map(|door| door.replace(question, socket, bind.close_on_exec));
        if replaced == Some(Ok(())) { Answer::Done } else { Answer::GoOn }
    }
}

/// A socket beside others of its address, with the options of the app's.
fn bind_beside(bind: &Bind) -> Result<OwnedFd, Errno> {
    listen::bind_beside(bind.address, bind.only_v6, &|socket| bind.options.give_to(socket))
}
