//! From SQL text to a plan and from a plan to a dataflow.

pub mod arrangement;
pub mod error;
pub mod explain;
pub mod expr;
pub mod external;
pub mod functions;
pub mod lower;
pub mod optimize;
pub mod parser;
pub mod plan;
pub mod render;
pub mod session;
