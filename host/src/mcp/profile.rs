/// A named choice of tools: the fewer a model sees, the better it chooses.
#[derive(Debug)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// What it is for, in one line.
    pub about: &'static str,
    /// Its tools; `None` is all there are.
    pub tools: Option<&'static [&'static str]>,
}

/// Every profile, the default first.
pub const PROFILES: &[Profile] = &[
    Profile { name: "workspace-full", about: "Every tool", tools: None },
    Profile {
        name: "vm-run",
        about: "Programs in machines that are gone afterwards",
        tools: Some(&["vm_run"]),
    },
];

impl Profile {
    /// Whether it offers this tool.
    #[must_use]
    pub fn offers(&self, tool: &str) -> bool {
        self.tools.is_none_or(|tools| tools.contains(&tool))
    }
}
