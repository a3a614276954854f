//! Everything besides running an app: `--help`, `--version`, `guard check`, questions to the running guard, and
//! `guard probe`.

pub mod ask;
pub mod check;
pub mod help;
pub mod probe;
