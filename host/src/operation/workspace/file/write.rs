use super::{GuestName, octal};
use crate::event::{Event, Stream};
use crate::operation::AnyAnswer as _;
use crate::operation::argument::{HostPath, PathInGuest, WorkspaceRef};
use crate::operation::{Answer, Context, Effect, Ink, Input, Operation, Page, Streams};
use crate::workspace::Live;
use crate::{Error, ErrorKind, Pyro, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pyro_protocol::GuestPath;
use pyro_protocol::file::{self, Disposition};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::io::{Cursor, Read};

/// Write a file of a workspace.
///
/// The whole file at once: nobody sees a part of it. Directories on the way are
/// made. Permissions and owner of a file that is there stay; its other hard
/// links keep the old content. A symlink is written through if it stays within
/// the workspace.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct FileWrite {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The file.
    #[arg(value_name = "PATH")]
    #[schemars(with = "PathInGuest")]
    pub path: PathInGuest,
    /// The content, as text.
    #[arg(long, value_name = "TEXT", group = "content", allow_hyphen_values = true)]
    #[serde(default)]
    #[schemars(with = "String")]
    pub text: Option<String>,
    /// The content, in base64.
    #[arg(long, value_name = "BASE64", group = "content")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub base64: Option<String>,
    /// The content is that of this file of the host; on the command line, without
    /// any of the three, it is standard input.
    #[arg(long, value_name = "FILE", group = "content")]
    #[serde(default)]
    #[schemars(with = "HostPath")]
    pub text_file: Option<HostPath>,
    /// The file's permissions in octal, such as 755.
    #[arg(long, value_name = "OCTAL")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub mode: Option<String>,
    /// Add to the file that is there.
    #[arg(long, conflicts_with = "create_new")]
    #[serde(default)]
    pub append: bool,
    /// Fail if the file is there.
    #[arg(long)]
    #[serde(default)]
    pub create_new: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace file write fix-parser notes.txt --text 'to do'
  pyro workspace file write fix-parser bin/tool --mode 755 < tool";

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileWriteAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// The file.
    #[serde(flatten)]
    pub name: GuestName,
    /// How long it is now.
    pub size_bytes: u64,
    /// How many bytes were written.
    pub bytes_written: u64,
    /// Its permissions, in octal.
    pub mode: String,
    /// Whether it was not there before.
    pub created: bool,
}

/// Where a content comes from.
enum Content {
    /// It is here, or in a file.
    Read(Box<dyn Read + Send>),
    /// It comes as it likes.
    Stdin(Input),
}

impl FileWrite {
    /// A text for the whole file, everything else by default.
    pub fn new(
        workspace: impl Into<WorkspaceRef>,
        path: PathInGuest,
        text: impl Into<String>,
    ) -> Self {
        Self {
            workspace_id: workspace.into(),
            path,
            text: Some(text.into()),
            base64: None,
            text_file: None,
            mode: None,
            append: false,
            create_new: false,
        }
    }

    async fn content(&self, context: &mut Context) -> Result<Content> {
        let Self { text, base64, text_file, .. } = self;
        let read = |content: Vec<u8>| Content::Read(Box::new(Cursor::new(content)));
        match (text, base64, text_file) {
            (Some(text), None, None) => Ok(read(text.clone().into_bytes())),
            (None, Some(base64), None) => STANDARD.decode(base64).map(read).map_err(|error| {
                Error::new(ErrorKind::InvalidInput, "`base64` is no base64").because(error)
            }),
            (None, None, Some(path)) => Ok(Content::Read(Box::new(path.open(context).await?))),
            (None, None, None) => match context.stdin.take() {
                Some(stdin) => Ok(Content::Stdin(stdin)),
                None => Err(Error::new(ErrorKind::InvalidInput, "there is no content")
                    .hint("give `text`, `base64` or `text_file`")),
            },
            (_, _, _) => Err(Error::new(ErrorKind::InvalidInput, "there is more than one content")
                .hint("give one of `text`, `base64` and `text_file`")),
        }
    }

    fn disposition(&self) -> Result<Disposition> {
        match (self.append, self.create_new) {
            (false, false) => Ok(Disposition::Replace),
            (true, false) => Ok(Disposition::Append),
            (false, true) => Ok(Disposition::CreateNew),
            (true, true) => Err(Error::new(
                ErrorKind::InvalidInput,
                "a new file has nothing to append to: give `append` or `create_new`",
            )),
        }
    }

    fn mode(&self) -> Result<Option<u32>> {
        let Some(text) = &self.mode else { return Ok(None) };
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(Some(mode)),
            Ok(_) | Err(_) => {
                Err(Error::new(ErrorKind::InvalidInput, format!("{text:?} is no mode"))
                    .hint("a mode is octal, from 0 to 7777, such as 644"))
            }
        }
    }
}

impl Operation for FileWrite {
    const PATH: &'static [&'static str] = &["workspace", "file", "write"];
    const TOOL: Option<&'static str> = Some("workspace_file_write");
    const EFFECT: Effect = Effect::Destroys;
    const STREAMS: Streams = Streams::Answer;
    type Output = FileWriteAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.path.0.to_string())
    }

    fn guest_path(&self) -> Option<&GuestPath> {
        Some(&self.path.0)
    }

    async fn run(self, pyro: &Pyro, mut context: Context) -> Result<FileWriteAnswer> {
        let (disposition, mode) = (self.disposition()?, self.mode()?);
        let content = self.content(&mut context).await?;
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let name = GuestName::new(&self.path.0, live.redactor());
        let request = file::FileWrite { path: self.path.0, disposition, mode };
        let writing = async {
            match content {
                Content::Read(content) => live.agent().write_file_from(request, content).await,
                Content::Stdin(content) => live.agent().write_file(request, content).await,
            }
        };
        let written = context.unless_cancelled(writing).await?;
        let answer = FileWriteAnswer {
            workspace_id: live.id().to_string(),
            name,
            size_bytes: written.size_bytes,
            bytes_written: written.bytes_written,
            mode: octal(written.mode),
            created: written.created,
        };
        let bytes = answer.to_text(Ink::Plain).into_bytes();
        context.events.emit(Event::Output { stream: Stream::Stdout, bytes }).await;
        Ok(answer)
    }
}

impl Answer for FileWriteAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let verb = if self.created { "Created" } else { "Wrote" };
        writeln!(page, "{verb} {}: {} bytes", self.name.shown(), self.bytes_written)
    }
}
