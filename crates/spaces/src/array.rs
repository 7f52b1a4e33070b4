//! `Array`: a dense row-major block of values with its shape.

use crate::DType;
use half::f16;

/// The elements of an [`Array`].
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Bool(Vec<bool>),
    U8(Vec<u8>),
    I32(Vec<i32>),
    F16(Vec<f16>),
    F32(Vec<f32>),
}

/// A dense row-major block of values. A scalar has an empty shape and one element.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Data,
}

impl Data {
    fn extend(&mut self, other: &Data) {
        match (self, other) {
            (Data::Bool(a), Data::Bool(b)) => a.extend_from_slice(b),
            (Data::U8(a), Data::U8(b)) => a.extend_from_slice(b),
            (Data::I32(a), Data::I32(b)) => a.extend_from_slice(b),
            (Data::F16(a), Data::F16(b)) => a.extend_from_slice(b),
            (Data::F32(a), Data::F32(b)) => a.extend_from_slice(b),
            _ => panic!("joined arrays must have one dtype"),
        }
    }
}

/// Runs `$body` with `$xs` bound to the vector inside, whatever its element type.
macro_rules! each {
    ($data:expr, $xs:ident => $body:expr) => {
        match $data {
            Data::Bool($xs) => $body,
            Data::U8($xs) => $body,
            Data::I32($xs) => $body,
            Data::F16($xs) => $body,
            Data::F32($xs) => $body,
        }
    };
}

impl Array {
    /// An array of `data`, which must hold as many elements as `shape` says.
    pub fn new(shape: &[usize], data: Data) -> Self {
        let array = Array { shape: shape.to_vec(), data };
        assert_eq!(array.shape.iter().product::<usize>(), array.len(), "shape {shape:?}");
        array
    }

    pub fn zeros(dtype: DType, shape: &[usize]) -> Self {
        let n = shape.iter().product();
        let data = match dtype {
            DType::Bool => Data::Bool(vec![false; n]),
            DType::U8 => Data::U8(vec![0; n]),
            DType::I32 => Data::I32(vec![0; n]),
            DType::F16 => Data::F16(vec![f16::ZERO; n]),
            DType::F32 => Data::F32(vec![0.0; n]),
        };
        Array { shape: shape.to_vec(), data }
    }

    pub fn bool(x: bool) -> Self {
        Array { shape: vec![], data: Data::Bool(vec![x]) }
    }

    pub fn i32(x: i32) -> Self {
        Array { shape: vec![], data: Data::I32(vec![x]) }
    }

    pub fn f32(x: f32) -> Self {
        Array { shape: vec![], data: Data::F32(vec![x]) }
    }

    pub fn from_f32(shape: &[usize], xs: Vec<f32>) -> Self {
        Self::new(shape, Data::F32(xs))
    }

    pub fn from_u8(shape: &[usize], xs: Vec<u8>) -> Self {
        Self::new(shape, Data::U8(xs))
    }

    pub fn from_i32(shape: &[usize], xs: Vec<i32>) -> Self {
        Self::new(shape, Data::I32(xs))
    }

    pub fn from_bool(shape: &[usize], xs: Vec<bool>) -> Self {
        Self::new(shape, Data::Bool(xs))
    }

    pub fn dtype(&self) -> DType {
        match self.data {
            Data::Bool(_) => DType::Bool,
            Data::U8(_) => DType::U8,
            Data::I32(_) => DType::I32,
            Data::F16(_) => DType::F16,
            Data::F32(_) => DType::F32,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        each!(&self.data, xs => xs.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as f32, whatever they are: booleans become 0 and 1.
    pub fn to_f32(&self) -> Vec<f32> {
        self.floats(0..self.len())
    }

    /// A range of the flattened elements as f32.
    pub fn floats(&self, span: std::ops::Range<usize>) -> Vec<f32> {
        match &self.data {
            Data::Bool(xs) => xs[span].iter().map(|&x| x as u8 as f32).collect(),
            Data::U8(xs) => xs[span].iter().map(|&x| x as f32).collect(),
            Data::I32(xs) => xs[span].iter().map(|&x| x as f32).collect(),
            Data::F16(xs) => xs[span].iter().map(|x| x.to_f32()).collect(),
            Data::F32(xs) => xs[span].to_vec(),
        }
    }

    /// The elements as booleans: anything but zero is true.
    pub fn to_bool(&self) -> Vec<bool> {
        match &self.data {
            Data::Bool(xs) => xs.clone(),
            Data::U8(xs) => xs.iter().map(|&x| x != 0).collect(),
            Data::I32(xs) => xs.iter().map(|&x| x != 0).collect(),
            Data::F16(xs) => xs.iter().map(|&x| x != f16::ZERO).collect(),
            Data::F32(xs) => xs.iter().map(|&x| x != 0.0).collect(),
        }
    }

    /// The elements as integers; floats are truncated.
    pub fn to_i32(&self) -> Vec<i32> {
        match &self.data {
            Data::I32(xs) => xs.clone(),
            _ => self.to_f32().into_iter().map(|x| x as i32).collect(),
        }
    }

    /// The first element as f32: for scalars such as a reward.
    pub fn item(&self) -> f32 {
        self.floats(0..1)[0]
    }

    /// Whether no float32 among the elements is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        !matches!(&self.data, Data::F32(xs) if !xs.iter().all(|x| x.is_finite()))
    }

    /// Rows `range` of the leading axis.
    pub fn rows(&self, range: std::ops::Range<usize>) -> Self {
        let width = self.len() / self.shape[0].max(1);
        let span = range.start * width..range.end * width;
        let mut shape = self.shape.clone();
        shape[0] = range.len();
        let data = match &self.data {
            Data::Bool(xs) => Data::Bool(xs[span].to_vec()),
            Data::U8(xs) => Data::U8(xs[span].to_vec()),
            Data::I32(xs) => Data::I32(xs[span].to_vec()),
            Data::F16(xs) => Data::F16(xs[span].to_vec()),
            Data::F32(xs) => Data::F32(xs[span].to_vec()),
        };
        Array { shape, data }
    }

    /// Element `i` of the leading axis, without that axis.
    pub fn at(&self, i: usize) -> Self {
        let mut row = self.rows(i..i + 1);
        row.shape.remove(0);
        row
    }

    /// Joins arrays of one dtype and shape along a new leading axis. Panics when they differ.
    pub fn stack<'a>(items: impl IntoIterator<Item = &'a Array>) -> Self {
        let mut items = items.into_iter();
        let first = items.next().expect("stack needs at least one array");
        let mut out = first.clone();
        let mut count = 1;
        for item in items {
            assert_eq!(item.shape, first.shape, "stacked arrays must have one shape");
            out.data.extend(&item.data);
            count += 1;
        }
        out.shape.insert(0, count);
        out
    }

    /// Adds the rows of `other`, along the leading axis. Panics where dtypes or the shapes of rows differ.
    pub fn append(&mut self, other: &Array) {
        assert_eq!(self.shape[1..], other.shape[1..], "appended rows must have the same shape");
        self.data.extend(&other.data);
        self.shape[0] += other.shape[0];
    }

    /// The same elements under another shape of equal size.
    pub fn reshape(mut self, shape: &[usize]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), self.len(), "shape {shape:?}");
        self.shape = shape.to_vec();
        self
    }

    /// Little-endian bytes of the elements.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.data {
            Data::Bool(xs) => xs.iter().map(|&x| x as u8).collect(),
            Data::U8(xs) => xs.clone(),
            Data::I32(xs) => xs.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::F16(xs) => xs.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::F32(xs) => xs.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// The inverse of [`Array::to_bytes`]; `None` where the length does not fit.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Option<Self> {
        if bytes.len() != shape.iter().product::<usize>() * dtype.size() {
            return None;
        }
        let data = match dtype {
            DType::Bool => Data::Bool(bytes.iter().map(|&x| x != 0).collect()),
            DType::U8 => Data::U8(bytes.to_vec()),
            DType::I32 => Data::I32(bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b)).collect()),
            DType::F16 => Data::F16(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b)).collect()),
            DType::F32 => Data::F32(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
        };
        Some(Array { shape: shape.to_vec(), data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stack_rows_and_bytes_round_trip() {
        let a = Array::from_f32(&[2], vec![1.0, -2.5]);
        let b = Array::from_f32(&[2], vec![3.0, 4.0]);
        let s = Array::stack([&a, &b]);
        assert_eq!(s.shape, [2, 2]);
        assert_eq!(s.at(1), b);
        assert_eq!(s.rows(0..1).reshape(&[2]), a);
        assert_eq!(Array::from_bytes(DType::F32, &[2, 2], &s.to_bytes()), Some(s.clone()));
        assert_eq!(Array::from_bytes(DType::F32, &[3], &s.to_bytes()), None);
    }
}
