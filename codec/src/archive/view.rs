//! Views of an archive's tensors.

use std::ops::Range;

use cmz_format::{Code, Error, Result, View};

use super::Archive;
use crate::registry;
use crate::view::{Layout, OpenView, PartSpec, Parts, Spec};

impl Archive {
    /// The views: tensors that are not stored, but come from stored ones, as weights from their quantized form.
    #[must_use]
    pub fn views(&self) -> &[View] {
        self.index.views()
    }

    /// Whether this version can read a view, as far as can be told without reading its parts.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if there is no such view, [`Code::UnknownEncoding`] if a newer version is needed,
    /// [`Code::Malformed`] if what is said of it breaks a rule.
    pub fn check_view(&self, name: &str) -> Result<()> {
        let view = self.find_view(name)?;
        self.bind(view).and_then(|(layout, spec)| layout.check(&spec)).map_err(|e| self.in_view(e, view))
    }

    /// Reads the parts of a view, so that rows of it can be decoded. The parts stay in memory as long as the result.
    ///
    /// # Errors
    /// As [`Self::check_view`], or what reading the parts raises.
    pub fn open_view(&self, name: &str) -> Result<OpenView> {
        let view = self.find_view(name)?;
        let open = || {
            let (layout, spec) = self.bind(view)?;
            layout.check(&spec)?;
            let mut parts = Parts::default();
            for (role, tensor) in &view.parts {
                parts.insert(role, self.read(tensor)?);
            }
            OpenView::new(layout, view, &spec, parts)
        };
        open().map_err(|e| self.in_view(e, view))
    }

    /// The elements of a whole view.
    ///
    /// # Errors
    /// As [`Self::open_view`].
    pub fn read_view(&self, name: &str) -> Result<Vec<u8>> {
        let count = self.find_view(name)?.shape.first().copied().unwrap_or(0);
        self.read_view_rows(name, 0..count)
    }

    /// The elements of rows of a view, that is, of indices of its first dimension. All parts are read; of the elements,
    /// only these are computed.
    ///
    /// # Errors
    /// As [`Self::open_view`], or [`Code::InvalidArgument`] if there are no such rows.
    pub fn read_view_rows(&self, name: &str, rows: Range<u64>) -> Result<Vec<u8>> {
        self.open_view(name)?.read_rows(rows).map_err(|e| self.in_file(e).in_tensor(name))
    }

    fn find_view(&self, name: &str) -> Result<&View> {
        self.index.find_view(name).ok_or_else(|| {
            self.in_file(Error::new(Code::InvalidArgument, "there is no such view"))
                .in_tensor(name)
                .with_help("`cmz inspect --tensors` lists the names")
        })
    }

    fn bind<'a>(&'a self, view: &'a View) -> Result<(&'static dyn Layout, Spec<'a>)> {
        let layout = registry::layout_by_name(&view.layout).ok_or_else(|| {
            Error::new(Code::UnknownEncoding, format!("a view of unknown layout {:?}", view.layout))
                .with_help("use a newer cmz; the tensors of the file are not concerned")
        })?;
        let tensor = |name: &str| self.index.find(name).map(|tensor| &self.tensors()[tensor]);
        let part = |name: &str| tensor(name).map(|tensor| PartSpec { dtype: &tensor.dtype, shape: &tensor.shape });
        let spec = Spec::new(view, part);
        spec.map(|spec| (layout, spec)).ok_or_else(|| Error::new(Code::Malformed, "a part of the view is not there"))
    }

    fn in_view(&self, error: Error, view: &View) -> Error {
        self.in_file(error).in_tensor(&view.name)
    }
}
