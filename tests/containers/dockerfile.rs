//! Dockerfile.example as a user builds it.

use crate::container::Run;
use crate::engine::Engine;
use crate::image::image_of;

tests![the_example_is_built_and_run];

fn the_example_is_built_and_run() {
    let image = image_of(Engine::Docker, "Dockerfile.example", "example");
    let mut app = Run::of(Engine::Docker, image).start();
    app.line("listening on http://0.0.0.0:8080");
    app.until_yes(&["probe", "http://127.0.0.1:8080/"]);
    app.tell("stop");
    assert_eq!(app.code(), 0);
}
