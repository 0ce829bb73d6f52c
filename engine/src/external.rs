//! API connections and external functions: what is declared, and what keeps a call from being answered.

use datafusion::logical_expr::LogicalPlan;
use deltaworks_sql::functions::external::external_calls;
use deltaworks_sql::parser::{CreateExternalFunction, Name, Options};

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
}

impl Connection {
    fn kind(&self) -> &str {
        self.options.get("type").unwrap_or_default()
    }
    fn is_http(&self) -> bool {
        self.kind().eq_ignore_ascii_case("http")
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
        if connection.is_http() && options.get("url").is_none() {
            return Err(EngineError::new(
                format!("API connection \"{object}\" of TYPE 'http' has no URL"),
                "write URL = 'http://host:port/path'",
            ));
        }
        self.catalog.connections.insert(object, connection);
        Ok(())
    }
    /// CREATE EXTERNAL FUNCTION: its calls can be planned from now on.
    pub(crate) fn create_external_function(&mut self, create: &CreateExternalFunction) -> Result<()> {
        let qualified = self.catalog.qualify(&create.name);
        if self.catalog.external.contains_key(&qualified) && !create.or_replace {
            return if create.if_not_exists { Ok(()) } else { Err(exists("function", create.name.object())) };
        }
        let connection = create.connection.object().to_string();
        if !self.catalog.connections.contains_key(&connection) {
            return Err(EngineError::new(
                format!("API connection \"{connection}\" does not exist"),
                format!("create it first: CREATE API CONNECTION {connection} TYPE = 'http' URL = 'http://..'"),
            ));
        }
        self.session.create_external_function(create)?;
        self.catalog.external.insert(qualified, ExternalFunction { connection });
        Ok(())
    }
    pub(crate) fn drop_function(&mut self, name: &Name) {
        let qualified = self.catalog.qualify(name);
        self.catalog.external.remove(&qualified);
        self.session.drop_function(name);
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
            return Err(EngineError::new(
                format!("external function \"{called}\" cannot be called: calls over HTTP are not supported yet"),
                "use CREATE FUNCTION with an expression",
            ));
        }
        Ok(())
    }
}

fn exists(what: &str, name: &str) -> EngineError {
    EngineError::new(format!("{what} \"{name}\" exists already"), "drop it first, or write IF NOT EXISTS")
}
