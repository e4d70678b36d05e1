use super::file::ArtifactType;
use crate::context::Admitted;
use crate::event::Event;
use crate::operation::argument::{HostPath, PathInGuest, WorkspaceRef, maybe_count};
use crate::operation::long::told;
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::Live;
use crate::workspace::export::{Existing, Exported, Format, Limits, Wanted, export, stream};
use crate::{Error, ErrorKind, Pyro, Result, guest_text};
use pyro_protocol::GuestPath;
use pyro_protocol::guest_path::PATH_MAX;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::path::Path;

/// What names the caller's standard output.
const STDOUT: &str = "-";

/// Export a file, directory or symlink of a workspace to the host.
///
/// Permissions, times, links and holes are kept; set-id bits are not, and
/// sockets, FIFOs and devices are left out. The output is there complete, or not
/// at all; it must not exist unless `force` replaces it.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspaceExport {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// What to export; `/workspace` is all of it.
    #[arg(value_name = "PATH")]
    #[schemars(with = "PathInGuest")]
    pub path: PathInGuest,
    /// Where to, on the host. `-` is standard output: the bytes of a file, an
    /// archive of all else; not with `--json`.
    #[arg(short, long = "output", value_name = "HOST_PATH")]
    #[schemars(with = "HostPath")]
    pub output_path: HostPath,
    /// `auto` exports it as what it is, `tar` as an archive.
    #[arg(long, value_name = "auto|tar", default_value_t)]
    #[serde(default)]
    pub format: ExportFormat,
    /// Replace what is there.
    #[arg(short, long)]
    #[serde(default)]
    pub force: bool,
    /// Fail if the contents have more bytes than this.
    #[arg(long, value_name = "N")]
    #[serde(default, deserialize_with = "maybe_count")]
    #[schemars(with = "u64")]
    pub max_bytes: Option<u64>,
}

/// As what something is exported.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// As what it is.
    #[default]
    Auto,
    /// As a tar archive.
    Tar,
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Tar => "tar",
        })
    }
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace export fix-parser target/release/app --output ./app
  pyro workspace export fix-parser /workspace --output all.tar --format tar --force
  pyro workspace export fix-parser src --output - | tar -tv";

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WorkspaceExportAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// What was exported, in the guest.
    pub workspace_path: String,
    /// Where it is now, on the host; `-` when it went to standard output.
    pub output_path: String,
    /// What it is.
    pub artifact_type: ArtifactType,
    /// How many files, directories and links.
    pub entry_count: u64,
    /// How many bytes their contents have.
    pub bytes_written: u64,
    /// What was left out, or changed meanwhile.
    pub warnings: Vec<String>,
}

impl Operation for WorkspaceExport {
    const PATH: &'static [&'static str] = &["workspace", "export"];
    const TOOL: Option<&'static str> = Some("workspace_export");
    const EFFECT: Effect = Effect::Destroys;
    const REPEATABLE: bool = true;
    type Output = WorkspaceExportAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(format!("{} to {}", self.path.0, self.output_path.as_path().display()))
    }

    fn guest_path(&self) -> Option<&GuestPath> {
        Some(&self.path.0)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<WorkspaceExportAnswer> {
        let to = self.whereto(&context)?;
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let workspace_path = self.path.0.to_string();
        let exporting = self.export(&live, to.as_ref(), &context);
        let exported = told("exporting from", &live, &context, exporting).await?;
        for warning in &exported.warnings {
            context.events.emit(Event::Warning(warning.clone())).await;
        }
        let output_path = to.as_ref().map_or(Path::new(STDOUT), Admitted::path);
        Ok(WorkspaceExportAnswer {
            workspace_id: live.id().to_string(),
            workspace_path,
            output_path: output_path.to_string_lossy().into_owned(),
            artifact_type: exported.file_type.into(),
            entry_count: exported.entry_count,
            bytes_written: exported.bytes_written,
            warnings: exported.warnings,
        })
    }
}

impl WorkspaceExport {
    /// As what it is, to where nothing is yet.
    pub fn new(
        workspace: impl Into<WorkspaceRef>,
        path: PathInGuest,
        output: impl Into<HostPath>,
    ) -> Self {
        Self {
            workspace_id: workspace.into(),
            path,
            output_path: output.into(),
            format: ExportFormat::default(),
            force: false,
            max_bytes: None,
        }
    }

    /// A path of the host; `None` is the caller's standard output.
    fn whereto(&self, context: &Context) -> Result<Option<Admitted>> {
        match self.output_path.is_stdout() {
            false => self.output_path.resolve(context).map(Some),
            true if context.takes_output => Ok(None),
            true => {
                let message = "an export cannot go to standard output here";
                Err(Error::new(ErrorKind::InvalidInput, message)
                    .hint("name a file with `--output`; only without `--json` is `-` one"))
            }
        }
    }

    async fn export(
        self,
        live: &Live,
        to: Option<&Admitted>,
        context: &Context,
    ) -> Result<Exported> {
        let format = match self.format {
            ExportFormat::Auto => Format::Tree,
            ExportFormat::Tar => Format::Tar,
        };
        let limits = Limits { bytes: self.max_bytes.unwrap_or(u64::MAX), ..Limits::default() };
        let (agent, path, cancel) = (live.agent(), self.path.0, &context.cancel);
        match to {
            Some(output) => {
                let existing = if self.force { Existing::Replace } else { Existing::Refuse };
                let output = output.clone();
                export(
                    agent,
                    Wanted { path, output, format, existing, limits, attributes: false },
                    cancel,
                )
                .await
            }
            None => stream(agent, path, format, limits, &context.events, cancel).await,
        }
    }
}

impl Answer for WorkspaceExportAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        if self.output_path == STDOUT {
            // What is there is the export alone.
            return Ok(());
        }
        let path = guest_text::escaped(&self.workspace_path, PATH_MAX);
        let plural = if self.entry_count == 1 { "y" } else { "ies" };
        writeln!(
            page,
            "Exported {path} to {}: {}, {} entr{plural}, {} bytes",
            self.output_path,
            self.artifact_type.as_str(),
            self.entry_count,
            self.bytes_written
        )
    }
}
