//! The core under simulated time: single scenarios, random sequences, and a walk over every state that can be reached.

mod lingering;
mod listening;
mod random;
mod scenarios;
mod walk;
mod world;
