//! Watching paths for changes (`inotify(7)`), and telling whether what they lead to is still the same.
//!
//! A path may lead to a file system that never answers, such as one of a dead server. So a copy of guard looks at the paths.

use super::fork::spawn_copy;
use super::rights::keep_only;
use super::{Errno, Pid, socket};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::{self, File, Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// Entries of a directory that count, and links that are followed on the way to a path (ELOOP, `path_resolution(7)`).
const MOST_ENTRIES: usize = 4096;
const MOST_LINKS: usize = 40;

/// Bytes that one look reads of a path: a ConfigMap or a Secret has a mebibyte at most.
const MOST_BYTES: u64 = 4 << 20;

/// Watches on everything that leads to some paths. A watch says only that something may have changed. Its owner then makes a new one,
/// since the paths may lead elsewhere by then.
pub struct Watch(Inotify);

/// A look at some paths, which a copy of guard takes.
pub struct Scan {
    /// The copy, which is a child that has to be reaped.
    pub copy: Pid,
    report: File,
    said: Vec<u8>,
    paths: usize,
    watch: Result<Watch, Errno>,
}

/// What a path leads to, in two numbers. Of what guard may not read identity and time stand for the content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Of a file its content, and of a directory the names of its entries and the contents of the files that they lead to.
    pub content: u64,
    /// Another one also where the same was written again, or another file with the same content has taken the place.
    pub version: u64,
}

/// What a look has found.
pub struct Found {
    /// For each path; `None` while nothing is there.
    pub fingerprints: Vec<Option<Fingerprint>>,
    /// Has watched the paths since before their fingerprints were taken.
    pub watch: Option<Watch>,
    /// Why the kernel cannot watch all of them.
    pub unwatched: Option<Errno>,
}

/// What has become of a watch.
#[derive(PartialEq, Eq)]
enum Watched {
    Is,
    Gone,
    /// guard may not read it.
    Forbidden,
}

/// What the copy says of a path: whether something is there, and its fingerprint.
const RECORD: usize = 17;

/// What the copy says first: the error of the watch, or 0.
const HEAD: usize = size_of::<i32>();

impl Scan {
    /// Begins to look at the paths, which are absolute and need not be there. The errors are those of `pipe(2)`
    /// and `fork(2)`.
    pub fn begin(paths: &[&Path]) -> io::Result<Scan> {
        let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).map(Watch);
        let (report, writer) = socket::pipe()?;
        let copy = spawn_copy(|| {
            let watch = watch.as_ref().map_err(|error| *error);
            keep_only([writer.as_raw_fd(), watch.map_or(writer.as_raw_fd(), |watch| watch.as_fd().as_raw_fd())]);
            let error = match watch {
                Ok(watch) => paths.iter().fold(None, |error, path| error.or(watch.add_path(path).err())),
                Err(error) => Some(error),
            };
            let mut text = error.map_or(0, |error| error as i32).to_ne_bytes().to_vec();
            for path in paths {
                let mut left = MOST_BYTES;
                let found = fingerprint(path, &mut left);
                text.push(found.is_some().into());
                let Fingerprint { content, version } = found.unwrap_or_default();
                text.extend([content, version].into_iter().flat_map(u64::to_ne_bytes));
            }
            let _ = File::from(writer).write_all(&text);
        })?;
        Ok(Scan { copy, report: report.into(), said: Vec::new(), paths: paths.len(), watch })
    }

    /// Reads what the copy has said; `true` when it has ended.
    pub fn is_over(&mut self) -> bool {
        !self.report.read_to_end(&mut self.said).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// What it has found; `None` if it has ended early.
    pub fn found(self) -> Option<Found> {
        let Scan { said, paths, watch, .. } = self;
        let (head, records) = said.split_first_chunk::<HEAD>()?;
        let read = |record: &[u8]| {
            let number = |from: usize| Some(u64::from_ne_bytes(record.get(from..from + 8)?.try_into().ok()?));
            let fingerprint = Fingerprint { content: number(1)?, version: number(9)? };
            Some((record.first() == Some(&1)).then_some(fingerprint))
        };
        let fingerprints: Vec<_> = records.chunks_exact(RECORD).filter_map(read).collect();
        let error = i32::from_ne_bytes(*head);
        let unwatched = (error != 0).then(|| Errno::from_raw(error));
        (fingerprints.len() == paths).then_some(Found { fingerprints, watch: watch.ok(), unwatched })
    }
}

/// What to poll until the look is over.
impl AsFd for Scan {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }
}

impl Watch {
    /// Watches a path, and where it leads to a directory what the links in that lead to.
    fn add_path(&self, path: &Path) -> Result<(), Errno> {
        self.add_way(path.to_path_buf())?;
        let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
        for entry in entries.flatten().take(MOST_ENTRIES) {
            let entry = entry.path();
            if entry.is_symlink() {
                self.add_way(entry)?;
            }
        }
        Ok(())
    }

    /// Watches each step of the way: every directory for its own end, those that hold a link or miss the next step for new
    /// names, and the end of the way for its content.
    fn add_way(&self, mut path: PathBuf) -> Result<(), Errno> {
        let names = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM;
        let content = names | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE;
        'links: for _ in 0..MOST_LINKS {
            let mut at = PathBuf::from("/");
            let mut steps = path.components();
            while let Some(step) = steps.next() {
                let name = match step {
                    Component::Normal(name) => name,
                    Component::ParentDir => {
                        at.pop();
                        continue;
                    }
                    Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
                };
                let next = at.join(name);
                let rest = steps.as_path();
                match next.symlink_metadata() {
                    Err(_) => return self.add_directory(&at, names),
                    Ok(metadata) if metadata.is_symlink() => {
                        self.add_directory(&at, names)?;
                        let Ok(target) = fs::read_link(&next) else { return Ok(()) };
                        path = at.join(target).join(rest);
                        continue 'links;
                    }
                    Ok(metadata) if rest.as_os_str().is_empty() => {
                        // What guard may not read it may not watch, but the directory tells of it.
                        let is_hidden = self.add(&next, content)? == Watched::Forbidden;
                        if is_hidden && metadata.is_dir() {
                            return Err(Errno::EACCES);
                        }
                        return self.add_directory(&at, if is_hidden { content } else { names });
                    }
                    Ok(_) => _ = self.add(&next, AddWatchFlags::empty())?,
                }
                at = next;
            }
            return self.add(&at, content).map(drop);
        }
        Ok(())
    }

    /// Watches a directory that alone tells of the next step. It is an error if guard may pass through it and not read it.
    fn add_directory(&self, path: &Path, what: AddWatchFlags) -> Result<(), Errno> {
        if self.add(path, what)? == Watched::Forbidden { Err(Errno::EACCES) } else { Ok(()) }
    }

    /// A file that vanishes meanwhile is no error: the watch on its directory sees that.
    fn add(&self, path: &Path, what: AddWatchFlags) -> Result<Watched, Errno> {
        let own = AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::from_bits_retain(libc::IN_MASK_ADD);
        match self.0.add_watch(path, what | own) {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(Watched::Gone),
            Err(Errno::EACCES) => Ok(Watched::Forbidden),
            result => result.map(|_| Watched::Is),
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `None` while nothing is there.
fn fingerprint(path: &Path, left: &mut u64) -> Option<Fingerprint> {
    let metadata = path.metadata().ok()?;
    if !metadata.is_dir() {
        return Some(of_entry(path, &metadata, left));
    }
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let mut hasher = DefaultHasher::new();
            (metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()).hash(&mut hasher);
            return Some(Fingerprint { content: hasher.finish(), version: hasher.finish() });
        }
        // It has just gone, or there is a shortage, which is no change.
        entries => entries.ok()?,
    };
    let mut all = Fingerprint::default();
    for entry in entries.flatten().take(MOST_ENTRIES) {
        let path = entry.path();
        let found = path.metadata().ok().map(|metadata| of_entry(&path, &metadata, left));
        let of_name = |number: Option<u64>| {
            let mut hasher = DefaultHasher::new();
            (entry.file_name(), number).hash(&mut hasher);
            hasher.finish()
        };
        // The order of a directory's entries means nothing.
        all.content = all.content.wrapping_add(of_name(found.map(|found| found.content)));
        all.version = all.version.wrapping_add(of_name(found.map(|found| found.version)));
    }
    Some(all)
}

/// The version is identity, size and time. The content of a file counts as long as so many bytes are left to be read; that of anything else
/// is its version.
fn of_entry(path: &Path, metadata: &Metadata, left: &mut u64) -> Fingerprint {
    let mut hasher = DefaultHasher::new();
    (metadata.dev(), metadata.ino(), metadata.mode()).hash(&mut hasher);
    if !metadata.is_dir() {
        (metadata.size(), metadata.mtime(), metadata.mtime_nsec()).hash(&mut hasher);
    }
    let version = hasher.finish();
    let mut hasher = DefaultHasher::new();
    let is_read = metadata.is_file() && metadata.size() <= *left && hash_content(path, left, &mut hasher).is_ok();
    Fingerprint { content: if is_read { hasher.finish() } else { version }, version }
}

fn hash_content(path: &Path, left: &mut u64, hasher: &mut DefaultHasher) -> io::Result<()> {
    // A pipe may be there by now.
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?.take(*left);
    let mut buffer = [0; 4096];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            *left = file.limit();
            return Ok(());
        }
        hasher.write(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::is_readable;
    use std::os::unix::fs::symlink;

    fn look(paths: &[&Path]) -> Found {
        let mut scan = Scan::begin(paths).expect("a copy");
        while !scan.is_over() {
            let time = std::time::Duration::from_secs(10);
            assert!(socket::wait_readable(&[scan.as_fd()], time).expect("poll(2)"), "the copy says nothing");
        }
        super::super::fork::wait_for_copy(scan.copy);
        scan.found().expect("it looks at the paths")
    }

    /// What a change does: whether the watch tells, and whether the fingerprint differs.
    fn seen(path: &Path, change: impl FnOnce()) -> (bool, bool) {
        let Found { watch, fingerprints, .. } = look(&[path]);
        change();
        let content = |found: &[Option<Fingerprint>]| found[0].map(|found| found.content);
        let differs = content(&look(&[path]).fingerprints) != content(&fingerprints);
        (is_readable(watch.expect("inotify is there").as_fd()), differs)
    }

    #[test]
    fn every_way_to_change_is_seen() {
        let root = tempfile::tempdir().expect("a directory");
        let root = root.path();
        let (directory, file) = (root.join("a/b"), root.join("a/b/file"));
        let make = |text: &str| fs::write(&file, text).expect("the directory is there");
        let changed = (true, true);
        assert_eq!(
            seen(&file, || fs::create_dir_all(&directory).expect("ours")),
            (true, false),
            "a directory on the way"
        );
        assert_eq!(seen(&file, || make("1")), changed, "a file that comes");
        assert_eq!(seen(&file, || make("22")), changed, "a file that is written");
        assert_eq!(seen(&directory, || make("333")), changed, "a file of a directory");
        let next = root.join("a/b/next");
        for (text, differs) in [("4444", true), ("4444", false)] {
            fs::write(&next, text).expect("ours");
            let before = look(&[&file, &directory]).fingerprints;
            let replaced = seen(&file, || fs::rename(&next, &file).expect("ours"));
            assert_eq!(replaced, (true, differs), "a file that is replaced");
            let after = look(&[&file, &directory]).fingerprints;
            assert!(before.iter().zip(&after).all(|(before, after)| before != after), "another version each");
        }
        for path in [&file, &directory] {
            assert_eq!(seen(path, || make("4444")), (true, false), "the same is written again");
        }
        assert_eq!(seen(&file, || make("4445")), changed, "another text of the same length");
        let long = |last: u8| {
            let text = [&vec![b'x'; 5 << 20][..], &[last]].concat();
            fs::write(&file, text).expect("ours");
        };
        long(b'1');
        assert_eq!(seen(&file, || long(b'2')), changed, "a file that is not read");
        assert_eq!(seen(&file, || fs::rename(root.join("a"), root.join("c")).expect("ours")), changed, "an ancestor");
        assert_eq!(seen(&file, || fs::rename(root.join("c"), root.join("a")).expect("ours")), changed, "it is back");
        assert_eq!(seen(&file, || fs::remove_file(&file).expect("ours")), changed, "a file that goes");
        assert_eq!(seen(&directory, || fs::remove_dir_all(root.join("a")).expect("ours")), changed, "all goes");
    }

    /// As the kubelet does it: `key` leads to `..data/key`, and `..data` to a directory with the time in its name.
    #[test]
    fn a_swapped_link_is_seen() {
        let root = tempfile::tempdir().expect("a directory");
        let root = root.path();
        for (directory, text) in [("..1", "old"), ("..2", "new")] {
            fs::create_dir(root.join(directory)).expect("ours");
            fs::write(root.join(directory).join("key"), text).expect("ours");
            fs::write(root.join(directory).join("other"), "stays").expect("ours");
        }
        symlink("..1", root.join("..data")).expect("ours");
        for name in ["key", "other"] {
            symlink(format!("..data/{name}"), root.join(name)).expect("ours");
        }
        for (path, differs) in [(root.join("key"), true), (root.join("other"), false), (root.to_owned(), true)] {
            let swap = |to: &str| {
                symlink(to, root.join("..tmp")).expect("ours");
                fs::rename(root.join("..tmp"), root.join("..data")).expect("ours");
            };
            assert_eq!(seen(&path, || swap("..2")), (true, differs));
            assert_eq!(seen(&path, || swap("..1")), (true, differs));
        }
    }

    #[test]
    fn what_a_link_in_a_directory_leads_to_is_seen() {
        let (root, elsewhere) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let target = elsewhere.path().join("cert");
        fs::write(&target, "1").expect("ours");
        symlink(&target, root.path().join("cert")).expect("ours");
        assert_eq!(seen(root.path(), || fs::write(&target, "2").expect("ours")), (true, true));
        let next = elsewhere.path().join("next");
        fs::write(&next, "3").expect("ours");
        assert_eq!(seen(root.path(), || fs::rename(&next, &target).expect("ours")), (true, true));
    }

    #[test]
    fn how_much_another_path_has_changes_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        let [large, path] = ["large", "path"].map(|name| root.path().join(name));
        let fingerprints = |bytes: usize| {
            fs::write(&large, vec![b'x'; bytes]).expect("ours");
            look(&[&large, &path]).fingerprints
        };
        fs::write(&path, vec![b'x'; 3 << 20]).expect("ours");
        let (before, after) = (fingerprints(1 << 20), fingerprints(3 << 20));
        assert!(before[0] != after[0] && before[1] == after[1]);
    }

    #[test]
    fn neighbours_and_circles_are_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        let root = root.path();
        fs::write(root.join("file"), "1").expect("ours");
        fs::write(root.join("log"), "1").expect("ours");
        assert_eq!(seen(&root.join("file"), || fs::write(root.join("log"), "2").expect("ours")), (false, false));
        symlink("circle", root.join("circle")).expect("ours");
        assert_eq!(seen(&root.join("circle"), || ()), (false, false));
    }
}
