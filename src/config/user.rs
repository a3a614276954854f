//! GUARD_USER: the user that the app and guard itself become, by the image's own /etc/passwd and /etc/group (`passwd(5)`, `group(5)`).
//! No name service is asked: what it would load is in no small image, and guard is static.

use crate::signal::number;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// A user with its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The home directory; `None` where /etc/passwd does not know the user.
    pub home: Option<PathBuf>,
    /// As it was given.
    text: String,
}

impl User {
    /// The group of a process with this uid and gid when it has become the user. One that is the user already keeps its own where
    /// none is named: an engine's `--user 12345` leaves root's.
    pub fn gid_of_process(&self, (uid, gid): (u32, u32)) -> u32 {
        let names_group = self.text.contains(':');
        if uid == self.uid && !names_group { gid } else { self.gid }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `name`, `uid`, `name:group` or `uid:gid`. As Docker has it, the supplementary groups are those of /etc/group unless a group
/// was named. A uid that /etc/passwd does not know has the group of the same number, since no group but root's would be left.
pub(super) fn parse(text: &str) -> Result<User, String> {
    find(text, &read("/etc/passwd")?, &read("/etc/group")?)
}

/// A file that need not be there. A pipe would have guard wait for its writer, and a file without an end take all memory.
fn read(path: &str) -> Result<String, String> {
    const LONGEST: u64 = 16 * 1024 * 1024;
    let read = || {
        let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        let mut bytes = Vec::new();
        if metadata.is_file() && metadata.len() <= LONGEST {
            file.take(LONGEST).read_to_end(&mut bytes)?;
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        Err(io::Error::other("it is not a regular file of 16 MiB at most"))
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => result.map_err(|error| format!("{path} cannot be read: {error}")),
    }
}

fn find(text: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (user, named_group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let entry = entries(passwd).find(|entry| entry[0] == user || entry.get(2) == Some(&user));
    let uid = match &entry {
        Some(entry) => id(entry.get(2).copied().unwrap_or_default()),
        None if is_number(user) => id(user),
        None => Err(format!("/etc/passwd knows no user {user:?}")),
    }?;
    let name = entry.as_ref().map(|entry| entry[0]);
    let gid = match named_group {
        Some(named) => find_group(named, group)?,
        None => entry.as_ref().and_then(|entry| entry.get(3)).map_or(Ok(uid), |gid| id(gid))?,
    };
    let has_member = |entry: &Vec<&str>| {
        let members = entry.get(3).copied().unwrap_or_default();
        name.is_some_and(|name| members.split(',').any(|member| member == name))
    };
    let mut groups = Vec::new();
    if named_group.is_none() {
        groups.extend(entries(group).filter(has_member).filter_map(|entry| id(entry.get(2)?).ok()));
    }
    let home = entry.and_then(|entry| entry.get(5).copied()).filter(|home| !home.is_empty()).map(PathBuf::from);
    Ok(User { uid, gid, groups, home, text: text.to_owned() })
}

fn find_group(text: &str, group: &str) -> Result<u32, String> {
    let entry = entries(group).find(|entry| entry[0] == text);
    match entry {
        Some(entry) => id(entry.get(2).copied().unwrap_or_default()),
        None if is_number(text) => id(text),
        None => Err(format!("/etc/group knows no group {text:?}")),
    }
}

/// The lines of a file, each in its fields.
fn entries(file: &str) -> impl Iterator<Item = Vec<&str>> {
    file.lines().map(|line| line.split(':').collect()).filter(|fields: &Vec<&str>| !fields[0].is_empty())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A uid or a gid. The greatest number of 32 bits means "unchanged" to the kernel (`setresuid(2)`).
fn id(text: &str) -> Result<u32, String> {
    number(text)
        .filter(|&id| !text.is_empty() && id != u32::MAX)
        .ok_or_else(|| format!("{text:?} is no id: ids are 0 to {}", u32::MAX - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\napp:x:1000:100::/home/app:/bin/sh\n7:x:8:8::/:\nshort:x:9\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nssl:x:101:www,app\nadm:x:4:app\nbad:x:zz:app\n";

    fn user(uid: u32, gid: u32, groups: &[u32], home: Option<&str>, text: &str) -> Result<User, String> {
        Ok(User { uid, gid, groups: groups.to_vec(), home: home.map(PathBuf::from), text: text.to_owned() })
    }

    #[test]
    fn a_user_is_found_by_name_and_number() {
        for (text, expected) in [
            ("app", user(1000, 100, &[101, 4], Some("/home/app"), "app")),
            ("1000", user(1000, 100, &[101, 4], Some("/home/app"), "1000")),
            ("app:ssl", user(1000, 101, &[], Some("/home/app"), "app:ssl")),
            ("app:5", user(1000, 5, &[], Some("/home/app"), "app:5")),
            ("2000", user(2000, 2000, &[], None, "2000")),
            ("2000:0", user(2000, 0, &[], None, "2000:0")),
            ("root", user(0, 0, &[], Some("/root"), "root")),
            // A name that looks like a number is a name first.
            ("7", user(8, 8, &[], Some("/"), "7")),
            ("short", user(9, 9, &[], None, "short")),
        ] {
            assert_eq!(find(text, PASSWD, GROUP), expected, "{text}");
        }
    }

    #[test]
    fn a_file_that_has_no_end_is_not_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name| directory.path().join(name).to_str().expect("a name").to_owned();
        nix::unistd::mkfifo(path("pipe").as_str(), nix::sys::stat::Mode::S_IRWXU).expect("ours");
        std::fs::File::create(path("long")).and_then(|file| file.set_len(1 << 30)).expect("ours");
        for name in ["pipe", "long"] {
            let problem = format!("{} cannot be read: it is not a regular file of 16 MiB at most", path(name));
            assert_eq!(read(&path(name)), Err(problem));
        }
        assert_eq!(read(&path("none")), Ok(String::new()));
    }

    #[test]
    fn who_is_not_there_is_named() {
        for (text, problem) in [
            ("nobdy", "/etc/passwd knows no user \"nobdy\""),
            ("app:weel", "/etc/group knows no group \"weel\""),
            ("", "/etc/passwd knows no user \"\""),
            ("app:", "/etc/group knows no group \"\""),
            ("4294967295", "\"4294967295\" is no id: ids are 0 to 4294967294"),
            ("1:4294967295", "\"4294967295\" is no id: ids are 0 to 4294967294"),
            ("99999999999", "\"99999999999\" is no id: ids are 0 to 4294967294"),
            ("-1", "/etc/passwd knows no user \"-1\""),
        ] {
            assert_eq!(find(text, PASSWD, GROUP), Err(problem.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*", passwd in "[a-z0-9:,\n]*", group in "[a-z0-9:,\n]*") {
            let _ = find(&text, &passwd, &group);
        }
    }
}
