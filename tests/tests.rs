//! End-to-end tests of the binary.
//!
//! | module | what |
//! |---|---|
//! | `replay` | the first-touch job on its recorded topics: complete, delivered twice, other tick sizes, 1, 2 and 4 workers |
//! | `command_line` | exit codes, messages, formats |
//! | `bad_input` | broken records and broken scripts |
//! | `external` | external functions against a small HTTP server |
//! | `mission` | the statements that the documents behind the project print, where they are there |
//! | `statements` | COPY INTO, REPAIR TABLE, pipes |
//! | `real_input` | the first-touch job on a grocery panel, where that data is there |

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "end_to_end/bad_input.rs"]
mod bad_input;
#[path = "end_to_end/command_line.rs"]
mod command_line;
#[path = "end_to_end/external.rs"]
mod external;
#[path = "end_to_end/mission.rs"]
mod mission;
#[path = "end_to_end/program.rs"]
mod program;
#[path = "end_to_end/real_input.rs"]
mod real_input;
#[path = "end_to_end/replay.rs"]
mod replay;
#[path = "end_to_end/statements.rs"]
mod statements;
