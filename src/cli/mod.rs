//! What guard does besides running an app: `--help`, `--version`, `guard check`, questions to the guard that runs, and
//! `guard probe`.

pub mod ask;
pub mod check;
pub mod help;
pub mod probe;
