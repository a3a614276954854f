//! What guard does besides running an app: `--help`, `--version` and `guard check`.

pub mod check;
pub mod help;
