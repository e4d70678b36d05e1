use super::{Tools, advice, text};
use crate::context::{Caller, Roots};
use crate::event::{Event, Events};
use crate::operation::{AnyAnswer, Context, Entry};
use crate::{Error, ErrorKind, Pyro, Result};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    JsonObject, ListToolsResult, MetaObject, PaginatedRequestParams, ProgressNotificationParam,
    ProgressToken, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, Peer, RoleServer, ServerHandler};
use serde_json::{Value, json};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Warnings told together with an answer; more would bury it.
const WARNINGS_MAX: usize = 16;

/// How the loop goes, for a model that has only seen the list of tools. Clients
/// put it before every conversation: less than 1 KiB.
const INSTRUCTIONS: &str = "\
pyro gives you Linux computers of your own in microVMs. Nothing you do in one \
touches the host; you are root.

The loop: create a workspace, seeded from a directory of the host (it becomes \
/workspace and the baseline). Work in it: run commands, read, edit and write \
files. Review: the diff shows what changed against the baseline. Then \
export what is worth keeping, or reset to the baseline and try again. Delete \
the workspace when done; until then it stays, also across sessions.

A command that takes long goes on as a process, and the answer has its id: poll \
it. Big output is shown as its head and tail, with where to read the rest. Paths \
on the host must lie within the server's roots. A program that fails is an \
answer, not an error; errors say the next step. Calls may run at the same time.";

const _: () = assert!(INSTRUCTIONS.len() < 1024);

/// Translates between MCP and operations.
pub(super) struct Server {
    pyro: Pyro,
    tools: Tools,
    roots: Roots,
    calls: TaskTracker,
}

impl Server {
    pub(super) fn new(pyro: Pyro, tools: Tools, roots: Roots, calls: TaskTracker) -> Self {
        Self { pyro, tools, roots, calls }
    }

    async fn answer(
        &self,
        entry: &Entry,
        arguments: JsonObject,
        events: Events,
        cancel: CancellationToken,
    ) -> Result<Box<dyn AnyAnswer>> {
        let prepared = entry.from_object(arguments)?;
        let roots = self.roots.clone();
        let caller = Caller::Mcp;
        prepared(&self.pyro, Context { events, cancel, roots, caller, ..Context::default() }).await
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
        let (events, mut reports) = match context.meta.get_progress_token() {
            Some(token) => {
                let (events, received) = Events::channel();
                (events, Some(Reports { received, token, steps: 0.0 }))
            }
            None => (Events::discard(), None),
        };
        let events = warnings.listen(events);
        let arguments = request.arguments.unwrap_or_default();
        let cancelled = context.ct.clone();
        let mut work = pin!(self.answer(entry, arguments, events, context.ct));
        let ended = loop {
            tokio::select! {
                ended = &mut work => break ended,
                // Told here and not in a task: when the answer is there, nothing
                // of it is still on its way.
                event = next(&mut reports) => {
                    tell(&mut reports, event, &context.peer, &cancelled).await;
                }
            }
        };
        while let Some(event) = reports.as_mut().and_then(|all| all.received.try_recv().ok()) {
            tell(&mut reports, event, &context.peer, &cancelled).await;
        }
        let result = ended.and_then(|answer| success(&*answer, &warnings));
        Ok(result.unwrap_or_else(|error| failure(&error, &self.tools, entry)).into())
    }
}

fn success(answer: &dyn AnyAnswer, warnings: &Warnings) -> Result<CallToolResult> {
    let document = answer.to_json().map_err(|error| {
        Error::new(ErrorKind::Internal, "the answer does not fit into JSON").because(error)
    })?;
    let warnings = warnings.text();
    let text = answer.to_text_within(text::TEXT_MAX.saturating_sub(warnings.len()));
    let text = warnings + &text;
    let mut result = CallToolResult::success(vec![ContentBlock::text(text::bounded(text))]);
    result.structured_content = Some(document);
    Ok(result)
}

/// An error for the model to read. Clients hold structured content against the
/// answer's schema even then, so what programs want goes into `_meta`.
fn failure(error: &Error, tools: &Tools, asked: &Entry) -> CallToolResult {
    let next_step = error.next_step().map(|hint| advice::for_model(hint, tools, Some(asked)));
    let mut text = error.chain();
    if let Some(next_step) = &next_step {
        text.push_str("\nnext step: ");
        text.push_str(next_step);
    }
    let mut facts = serde_json::to_value(error).unwrap_or(Value::Null);
    facts["hint"] = json!(next_step);
    let mut meta = JsonObject::new();
    meta.insert("pyro/error".into(), facts);
    CallToolResult::error(vec![ContentBlock::text(text::bounded(text))])
        .with_meta(Some(MetaObject(meta)))
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

/// What a client that wants to know is told of how a call goes.
struct Reports {
    received: mpsc::Receiver<Event>,
    token: ProgressToken,
    steps: f64,
}

/// The next event; never comes where nobody wants to know.
async fn next(reports: &mut Option<Reports>) -> Event {
    if let Some(reports) = reports
        && let Some(event) = reports.received.recv().await
    {
        return event;
    }
    std::future::pending().await
}

/// Of a call that was cancelled nothing more is said.
async fn tell(
    reports: &mut Option<Reports>,
    event: Event,
    client: &Peer<RoleServer>,
    cancelled: &CancellationToken,
) {
    if let Some(reports) = reports.as_mut().filter(|_| !cancelled.is_cancelled())
        && let Some(message) = progress_message(event)
    {
        reports.steps += 1.0;
        let told = ProgressNotificationParam::new(reports.token.clone(), reports.steps);
        // A client that is gone cancels the call by itself.
        drop(client.notify_progress(told.with_message(message)).await);
    }
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
