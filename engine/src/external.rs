//! API connections and external functions: what is declared, and what keeps a call from being answered.
//!
//! A function behind an http connection has a table of results, `<function>$results`, arguments first. Continuous queries join it
//! (`calls.rs` fills it); any other query calls the function itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use datafusion::logical_expr::LogicalPlan;
use deltaworks_connectors::http::{Answer, Endpoint, HttpFunction};
use deltaworks_connectors::options::Options as ConnectorOptions;
use deltaworks_dataflow::{Column, DataType, Row, Schema};
use deltaworks_operators::letters::Letters;
use deltaworks_operators::merge::{DeleteBehavior, Engine as MergeEngine, MergeSpec};
use deltaworks_sql::functions::external::{Caller, external_calls, misplaced_calls};
use deltaworks_sql::parser::{CreateExternalFunction, Name, Options, Parameter, Spanned, Statement};

use crate::catalog::{Kind, Table};
use crate::error::EngineError;
use crate::script::Engine;

type Result<T> = std::result::Result<T, EngineError>;

/// An API connection, as declared.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) options: Options,
}

/// An external function, as declared.
#[derive(Clone, Debug)]
pub(crate) struct ExternalFunction {
    /// The connection's name.
    pub(crate) connection: String,
    /// How it is called, where it can be.
    pub(crate) http: Option<HttpFunction>,
    /// The table of its results, by qualified name.
    pub(crate) results: Option<String>,
}

/// Calls a function for a query that is not continuous.
struct Direct {
    function: HttpFunction,
    stop: Arc<AtomicBool>,
}
impl Caller for Direct {
    fn call(&self, rows: &[Row]) -> std::result::Result<Vec<Row>, String> {
        let result = |answer| match answer {
            Answer::Result(row) => Ok(row),
            Answer::Null(_) => Ok(HttpFunction::null()),
            Answer::Failed(reason) => Err(reason),
        };
        self.function.call(rows, &self.stop).into_iter().map(result).collect()
    }
}

impl Connection {
    fn kind(&self) -> &str {
        self.options.get("type").unwrap_or_default()
    }
    fn is_http(&self) -> bool {
        self.kind().eq_ignore_ascii_case("http")
    }
    fn endpoint(&self) -> Result<Endpoint> {
        let options = self.options.iter().map(|(name, value)| (name.to_lowercase(), value.to_string()));
        Ok(Endpoint::from_options(&ConnectorOptions::new(options))?)
    }
}

impl Engine {
    /// CREATE API CONNECTION: recorded; only TYPE 'http' can be called.
    pub(crate) fn create_connection(&mut self, name: &Name, if_not_exists: bool, options: &Options) -> Result<()> {
        let object = name.object().to_string();
        if self.catalog.connections.contains_key(&object) {
            return if if_not_exists { Ok(()) } else { Err(exists("API connection", &object)) };
        }
        let connection = Connection { options: options.clone() };
        if connection.kind().is_empty() {
            return Err(EngineError::new(
                format!("API connection \"{object}\" has no TYPE"),
                "write CREATE API CONNECTION c TYPE = 'http' URL = 'http://..'",
            ));
        }
        if connection.is_http() {
            if options.get("url").is_none() {
                return Err(EngineError::new(
                    format!("API connection \"{object}\" of TYPE 'http' has no URL"),
                    "write URL = 'http://host:port/path'",
                ));
            }
            connection.endpoint()?;
        }
        self.catalog.connections.insert(object, connection);
        Ok(())
    }
    /// CREATE EXTERNAL FUNCTION: its calls can be planned from now on.
    pub(crate) fn create_external_function(
        &mut self,
        create: &CreateExternalFunction,
        statement: &Spanned<Statement>,
    ) -> Result<()> {
        let qualified = self.catalog.qualify(&create.name);
        if self.catalog.external.contains_key(&qualified) && !create.or_replace {
            return if create.if_not_exists { Ok(()) } else { Err(exists("function", create.name.object())) };
        }
        let connection = create.connection.object().to_string();
        let Some(declared) = self.catalog.connections.get(&connection).cloned() else {
            return Err(EngineError::new(
                format!("API connection \"{connection}\" does not exist"),
                format!("create it first: CREATE API CONNECTION {connection} TYPE = 'http' URL = 'http://..'"),
            ));
        };
        let function = if declared.is_http() {
            self.create_http_function(&qualified, create, &declared, statement)?
        } else {
            self.session.create_external_function(create, None)?;
            ExternalFunction { connection, http: None, results: None }
        };
        self.catalog.external.insert(qualified, function);
        Ok(())
    }
    fn create_http_function(
        &mut self,
        name: &str,
        create: &CreateExternalFunction,
        declared: &Connection,
        statement: &Spanned<Statement>,
    ) -> Result<ExternalFunction> {
        let (arguments, returns) = self.signature(create)?;
        let types = arguments.iter().map(|column| column.data_type.clone()).collect();
        let http = HttpFunction::new(declared.endpoint()?, create.name.object(), types, returns.clone());
        let results = format!("{name}$results");
        if self.catalog.get(&results).is_some() {
            self.remove(&results, false)?;
        }
        self.add_results(&results, arguments, returns, statement)?;
        let direct = Direct { function: http.clone(), stop: Arc::clone(&self.stop) };
        self.session.create_external_function(create, Some(Arc::new(direct)))?;
        let started = self.calls.start(name, http.clone(), Arc::clone(&self.stop));
        started.map_err(|error| EngineError::new(format!("a thread could not be started: {error}"), ""))?;
        let connection = create.connection.object().to_string();
        Ok(ExternalFunction { connection, http: Some(http), results: Some(results) })
    }
    fn signature(&self, create: &CreateExternalFunction) -> Result<(Vec<Column>, DataType)> {
        let column =
            |parameter: &Parameter| Ok(Column::new(parameter.name.clone(), self.session.sql_type(&parameter.data_type)?));
        let arguments = create.parameters.iter().map(column).collect::<Result<Vec<_>>>()?;
        Ok((arguments, self.session.sql_type(&create.returns)?))
    }
    /// The table of a function's results: by its arguments, which may be NULL.
    fn add_results(
        &mut self,
        name: &str,
        arguments: Vec<Column>,
        returns: DataType,
        statement: &Spanned<Statement>,
    ) -> Result<()> {
        let key: Vec<usize> = (0..arguments.len()).collect();
        let mut columns = arguments;
        columns.push(Column::new("result", returns));
        let input = self.next_input;
        self.next_input += 2;
        let table = Table {
            delivered: (0..columns.len()).collect(),
            schema: Schema::new(columns),
            merge: Some(MergeSpec::new(key.clone(), MergeEngine::LastRow, DeleteBehavior::Allow)),
            key,
            number: None,
            metadata: Vec::new(),
            computed: None,
            defaults: BTreeMap::new(),
            declared: BTreeMap::new(),
            connector: None,
            continuous: false,
            append_only: false,
            retained: true,
            retention: None,
            errors_fail: false,
            letters: Letters::default(),
            input,
            errors_input: input + 1,
        };
        self.add(name, Kind::Table(Box::new(table)), statement)
    }
    /// DROP FUNCTION: refused while a continuous query joins its results.
    pub(crate) fn drop_function(&mut self, name: &Name) -> Result<()> {
        let qualified = self.catalog.qualify(name);
        let results = self.catalog.external.get(&qualified).and_then(|function| function.results.clone());
        if let Some(results) = results {
            self.remove(&results, false)?;
        }
        self.catalog.external.remove(&qualified);
        self.session.drop_function(name);
        Ok(())
    }
    /// DROP API CONNECTION: refused while a function goes through it.
    pub(crate) fn drop_connection(&mut self, name: &Name, if_exists: bool) -> Result<()> {
        let object = name.object();
        if let Some((function, _)) = self.catalog.external.iter().find(|(_, function)| function.connection == object) {
            return Err(EngineError::new(
                format!("API connection \"{object}\" is used by function \"{function}\""),
                "drop the function first",
            ));
        }
        if self.catalog.connections.remove(object).is_none() && !if_exists {
            return Err(EngineError::new(
                format!("API connection \"{object}\" does not exist"),
                "write DROP API CONNECTION IF EXISTS",
            ));
        }
        Ok(())
    }
    /// An error for the first external function of the plan that nothing can answer.
    pub(crate) fn check_calls(&self, plan: &LogicalPlan) -> Result<()> {
        for called in external_calls(plan) {
            let name = Name::new(called.split('.'));
            let function = self.catalog.external.get(&self.catalog.qualify(&name));
            let connection = function.and_then(|f| Some((&f.connection, self.catalog.connections.get(&f.connection)?)));
            let Some((name, connection)) = connection else { continue };
            if !connection.is_http() {
                return Err(EngineError::new(
                    format!(
                        "external function \"{called}\" cannot be called: its connection \"{name}\" of TYPE '{}' has no URL",
                        connection.kind()
                    ),
                    "create a connection with TYPE = 'http' URL = 'http://host:port/path', and the function with it",
                ));
            }
        }
        Ok(())
    }
}

/// An error for a call that a continuous query has elsewhere than in a select list or WHERE.
pub(crate) fn check_placed(plan: &LogicalPlan) -> Result<()> {
    match misplaced_calls(plan).first() {
        None => Ok(()),
        Some(called) => Err(EngineError::new(
            format!("external function \"{called}\" can be called in a select list or WHERE only"),
            "call it in a subquery, and join, group or order by its column",
        )),
    }
}
fn exists(what: &str, name: &str) -> EngineError {
    EngineError::new(format!("{what} \"{name}\" exists already"), "drop it first, or write IF NOT EXISTS")
}
