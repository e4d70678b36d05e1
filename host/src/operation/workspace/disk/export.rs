use crate::context::Admitted;
use crate::event::Event;
use crate::operation::argument::{HostPath, WorkspaceRef};
use crate::operation::long::told_by;
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::export::{Existing, Exported, Format, Limits, Wanted, export, image};
use crate::workspace::inspect::AtRest;
use crate::{Error, ErrorKind, Pyro, Result};
use pyro_protocol::GuestPath;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Export all that is on the disk of a stopped workspace.
///
/// The whole system with its environment and `/workspace`: a disk image that any
/// Linux mounts and boots from, or an archive. A throw-away machine reads the
/// disk, which stays as it is. The output is there complete, or not at all.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct DiskExport {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// Where to, on the host.
    #[arg(short, long = "output", value_name = "HOST_PATH")]
    #[schemars(with = "HostPath")]
    pub output_path: HostPath,
    /// `ext4` is the image of a file system, with holes where nothing is; `tar`
    /// an archive with owners and extended attributes.
    #[arg(long, value_name = "ext4|tar", default_value_t)]
    #[serde(default)]
    pub format: DiskFormat,
    /// Replace what is there.
    #[arg(short, long)]
    #[serde(default)]
    pub force: bool,
}

/// As what a disk is exported.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// As the image of a file system.
    #[default]
    Ext4,
    /// As a tar archive.
    Tar,
}

impl DiskFormat {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Tar => "tar",
        }
    }
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace disk export fix-parser --output fix-parser.ext4
  pyro workspace disk export fix-parser --output fix-parser.tar --format tar";

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DiskExportAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// Where it is now, on the host.
    pub output_path: String,
    /// As what: `ext4` or `tar`.
    pub disk_format: DiskFormat,
    /// How long an image is, with its holes; null for an archive.
    pub size_bytes: Option<u64>,
    /// How many files, directories and links.
    pub entry_count: u64,
    /// How many bytes their contents have.
    pub bytes_written: u64,
    /// What was left out.
    pub warnings: Vec<String>,
}

impl Operation for DiskExport {
    const PATH: &'static [&'static str] = &["workspace", "disk", "export"];
    const TOOL: Option<&'static str> = Some("workspace_disk_export");
    const EFFECT: Effect = Effect::Destroys;
    const REPEATABLE: bool = true;
    type Output = DiskExportAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(format!("{} to {}", self.format, self.output_path.as_path().display()))
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<DiskExportAnswer> {
        if self.output_path.is_stdout() {
            return Err(Error::new(ErrorKind::InvalidInput, "a disk is exported to a file")
                .hint("name one with `--output`"));
        }
        let output = self.output_path.resolve(&context)?;
        let existing = if self.force { Existing::Replace } else { Existing::Refuse };
        let at_rest = AtRest::open(pyro, self.workspace_id.as_str(), &context).await?;
        let (exported, size_bytes) = match self.format {
            DiskFormat::Ext4 => {
                let (exported, size) =
                    image_of(&at_rest, pyro, output.clone(), existing, &context).await?;
                (exported, Some(size))
            }
            DiskFormat::Tar => {
                let exported = archive_of(&at_rest, pyro, output.clone(), existing, &context);
                (exported.await?, None)
            }
        };
        for warning in &exported.warnings {
            context.events.emit(Event::Warning(warning.clone())).await;
        }
        Ok(DiskExportAnswer {
            workspace_id: at_rest.id().to_string(),
            output_path: output.path().to_string_lossy().into_owned(),
            disk_format: self.format,
            size_bytes,
            entry_count: exported.entry_count,
            bytes_written: exported.bytes_written,
            warnings: exported.warnings,
        })
    }
}

async fn image_of(
    at_rest: &AtRest,
    pyro: &Pyro,
    output: Admitted,
    existing: Existing,
    context: &Context,
) -> Result<(Exported, u64)> {
    image::refuse_existing(&output, existing)?;
    let inspection = at_rest.inspect_to_copy(pyro, context).await?;
    let copied = image::copy(&pyro.config, &inspection, output, existing, context).await;
    // What writes the image is gone before it is put in place.
    let copied = inspection.close(copied, pyro.deadlines.last_words).await?;
    copied.settle(existing).await
}

async fn archive_of(
    at_rest: &AtRest,
    pyro: &Pyro,
    output: Admitted,
    existing: Existing,
    context: &Context,
) -> Result<Exported> {
    image::refuse_existing(&output, existing)?;
    let inspection = at_rest.inspect(pyro, context).await?;
    let path = GuestPath::new("/")
        .map_err(|bad| Error::new(ErrorKind::Internal, "the top has no path").because(bad))?;
    let limits = Limits::default();
    let format = Format::Tar;
    let wanted = Wanted { path, output, format, existing, limits, attributes: true };
    let agent = inspection.agent();
    let exporting = export(agent, wanted, &context.cancel);
    let exported = told_by("exporting from", at_rest.id(), agent, context, exporting).await;
    inspection.close(exported, pyro.deadlines.last_words).await
}

impl Answer for DiskExportAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let Self { output_path, disk_format, entry_count, bytes_written, .. } = self;
        let size = self.size_bytes.map(|bytes| format!(" of {} MiB", bytes >> 20));
        writeln!(
            page,
            "Exported the disk of {} to {output_path}: {disk_format}{}, {entry_count} entries, \
             {bytes_written} bytes",
            self.workspace_id,
            size.unwrap_or_default()
        )
    }
}
