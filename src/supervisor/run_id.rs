//! The name of a run.

/// One life of the app in an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId {
    /// The instance's number, from 0. It stays the same however many instances come and go, so it is no index.
    pub instance: u32,
    /// From 1 in each instance.
    pub number: u32,
}
