//! The parser: from the text of a script to statements.
//!
//! | part | file |
//! |---|---|
//! | the statements and what they consist of | `statement.rs` |
//! | options and their secrets | `options.rs` |
//! | errors with place and remedy | `error.rs` |
//! | `${NAME}` | `substitute.rs` |
//! | scripts, and which rule reads which statement | `parse.rs` |
//! | `CREATE TABLE`, views and dynamic tables | `table.rs` |
//! | statements that write | `write.rs` |
//! | `PUT`, `COPY`, pipes | `ingest.rs` |
//! | functions and API connections | `function.rs` |
//! | `SHOW`, `DROP`, `SET` and the like | `utility.rs` |
//! | the steps that all rules share | `cursor.rs`, `source.rs`, `spelling.rs` |
//! | the dialect that queries are read in | `dialect.rs` |
//! | `IDENTITY(links)` | `identity.rs` |
//! | rewrites of queries into what DataFusion plans | `rewrite.rs` |
//! | the tables that a statement reads | `reads.rs` |

mod cursor;
mod dialect;
mod error;
mod function;
mod identity;
mod ingest;
mod locate;
mod options;
mod parse;
mod reads;
mod rewrite;
mod source;
mod spelling;
mod statement;
mod substitute;
mod table;
mod utility;
mod write;

pub use dialect::DeltaworksDialect;
pub use error::{ParseError, Position};
pub use identity::Identity;
pub use locate::place_of;
pub use options::{Options, is_secret, redact};
pub use parse::parse_script;
pub use reads::{IdentityRead, identities, table_names};
pub use rewrite::{
    CAST_MARK, KafkaRead, LOOKUP_SUFFIX, Lookup, Rewritten, explode_lateral_views, marked_name, merge_distinct_counts,
    name_apart, rewrite, shown_name, take_kafka_reads, take_lookups,
};
pub use statement::{
    Body, ColumnDef, ColumnKind, ColumnName, CopyFiles, CopyInto, CopySource, CreateDynamicTable, CreateExternalFunction,
    CreateFunction, CreatePipe, CreateTable, CreateView, DropObject, FileLocation, Insert, Name, ObjectKind, Parameter,
    Show, Spanned, Statement, TableSchema, Watermark, fold,
};
pub use substitute::substitute;
