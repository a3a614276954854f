//! guard, the init process for containers.

fn main() {}
