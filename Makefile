# The habits of the project; CONTRIBUTING.md says what each is for and how long it takes.

target := $(shell uname -m)-unknown-linux-musl

.PHONY: build test containers kernel kubernetes bench mutants release ci

# The static binary, as it is released.
build:
	rustup target add $(target)
	cargo build --locked --release --target $(target)

test:
	cargo test --locked

# As root.
containers:
	bash tests/containers/run

kernel:
	bash tests/kernel/run

# As root.
kubernetes:
	bash tests/kubernetes/run

bench:
	cargo bench --locked

# An hour or two; make mutants FILES=src/supervisor/policy.rs is a part.
mutants:
	tests/mutants $(FILES)

# All packages, in dist/.
release:
	bash release/build

# All that CI runs.
ci:
	bash .ci/run
