use super::Tools;
use crate::context::Caller;
use crate::event::{Event, Events};
use crate::operation::{AnyAnswer, Context, Entry, Ink};
use crate::{Error, ErrorKind, Pyro, Result};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    JsonObject, ListToolsResult, MetaObject, PaginatedRequestParams, ProgressNotificationParam,
    ProgressToken, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, Peer, RoleServer, ServerHandler};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Warnings told together with an answer; more would bury it.
const WARNINGS_MAX: usize = 16;

const INSTRUCTIONS: &str = "\
Linux machines in microVMs, made on demand and isolated from this host. Errors \
say what to do next.";

/// Translates between MCP and operations.
pub(super) struct Server {
    pyro: Pyro,
    tools: Tools,
    calls: TaskTracker,
}

impl Server {
    pub(super) fn new(pyro: Pyro, tools: Tools, calls: TaskTracker) -> Self {
        Self { pyro, tools, calls }
    }

    async fn answer(
        &self,
        entry: &Entry,
        arguments: JsonObject,
        events: Events,
        cancel: CancellationToken,
    ) -> Result<Box<dyn AnyAnswer>> {
        let prepared = entry.from_object(arguments)?;
        prepared(&self.pyro, Context { events, cancel, caller: Caller::Mcp, ..Context::default() })
            .await
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("pyro", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.list()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let _running = self.calls.token();
        let entry = self.tools.find(&request.name).ok_or_else(|| {
            ErrorData::invalid_params(format!("there is no tool `{}`", request.name), None)
        })?;
        let warnings = Warnings::default();
        let (events, received) = match context.meta.get_progress_token() {
            Some(token) => {
                let (events, received) = Events::channel();
                (events, Some((received, token)))
            }
            None => (Events::discard(), None),
        };
        let events = warnings.listen(events);
        let arguments = request.arguments.unwrap_or_default();
        let ended = tokio::select! {
            ended = self.answer(entry, arguments, events, context.ct) => ended,
            never = report(received, context.peer) => match never {},
        };
        let result = ended.and_then(|answer| success(&*answer, &warnings));
        Ok(result.unwrap_or_else(|error| failure(&error)).into())
    }
}

fn success(answer: &dyn AnyAnswer, warnings: &Warnings) -> Result<CallToolResult> {
    let document = answer.to_json().map_err(|error| {
        Error::new(ErrorKind::Internal, "the answer does not fit into JSON").because(error)
    })?;
    let text = warnings.text() + &answer.to_text(Ink::Plain);
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(document);
    Ok(result)
}

/// An error for the model to read. Clients hold structured content against the
/// answer's schema even then, so what programs want goes into `_meta`.
fn failure(error: &Error) -> CallToolResult {
    let mut text = error.chain();
    if let Some(next_step) = error.next_step() {
        text.push_str("\nnext step: ");
        text.push_str(next_step);
    }
    let mut meta = JsonObject::new();
    meta.insert("pyro/error".into(), serde_json::to_value(error).unwrap_or(Value::Null));
    CallToolResult::error(vec![ContentBlock::text(text)]).with_meta(Some(MetaObject(meta)))
}

/// What an operation warned of, for the reader of its answer.
#[derive(Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    fn listen(&self, events: Events) -> Events {
        let heard = Arc::clone(&self.0);
        events.tap(move |event| {
            if let Event::Warning(warning) = event {
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                if heard.len() < WARNINGS_MAX {
                    heard.push(format!("warning: {warning}\n"));
                }
            }
        })
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).concat()
    }
}

type Reported = Option<(mpsc::Receiver<Event>, ProgressToken)>;

/// Tells the client how a call goes, if it wants to know, for as long as it is
/// polled.
async fn report(reported: Reported, client: Peer<RoleServer>) -> std::convert::Infallible {
    if let Some((mut events, token)) = reported {
        let mut steps = 0.0;
        while let Some(event) = events.recv().await {
            if let Some(message) = progress_message(event) {
                steps += 1.0;
                let told = ProgressNotificationParam::new(token.clone(), steps);
                // A client that is gone cancels the call by itself.
                drop(client.notify_progress(told.with_message(message)).await);
            }
        }
    }
    std::future::pending().await
}

fn progress_message(event: Event) -> Option<String> {
    match event {
        Event::Stage { name, subject } => Some(format!("{name} {subject}")),
        Event::Progress(step) => Some(step),
        Event::Warning(warning) => Some(format!("warning: {warning}")),
        Event::ProgramStarted => Some("running".into()),
        Event::Output { .. } => None,
    }
}
