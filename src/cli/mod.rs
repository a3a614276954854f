//! Everything besides running an app: `--help`, `--version`, `guard check`, questions to the running guard,
//! `guard probe`, and a guard in whose command line another guard stands.

pub mod ask;
pub mod check;
pub mod help;
pub mod itself;
#[cfg(test)]
mod man;
pub mod probe;
mod timeout;
