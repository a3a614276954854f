//! What the project says of itself, by what it builds: its commands, its examples, and that its tests leave engines alone.

mod common;

mod docs;
mod engines;
mod fleet;
