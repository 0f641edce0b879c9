//! Trains a small network under a ChebyAAM head on the optical digits, with burn's optimiser and learner.
//!
//! ```text
//! cargo run --release -p margin-softmax-burn --example digits --features tui
//! ```
//!
//! burn shows a dashboard with `--features tui`, lines without. Runs on burn's default wgpu device; where that is the wrong
//! one, `CUBECL_WGPU_DEFAULT_DEVICE=IntegratedGpu(0)` or `Cpu` names another.

use burn::{
    data::{
        dataloader::{DataLoaderBuilder, batcher::Batcher},
        dataset::InMemDataset,
    },
    module::Module,
    nn::{Linear, LinearConfig},
    optim::AdamConfig,
    tensor::{Device, Int, Tensor, TensorData, activation::relu},
    train::{
        ClassificationOutput, InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep,
        metric::{AccuracyMetric, LossMetric},
    },
};
use flate2::read::GzDecoder;
use margin_softmax_burn::{MarginHead, MarginHeadConfig, MarginSoftmax};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// 1,797 images of 8×8 pixels and their digits; origin and licence in `examples/data/README.md` of the repository.
const FILE: &[u8] = include_bytes!("../../../examples/data/digits.csv.gz");

const PIXELS: usize = 64;
const HIDDEN: usize = 128;
const DIM: usize = 16;
const CLASSES: usize = 10;
const BATCH: usize = 64;
const EPOCHS: usize = 12;
const RATE: f64 = 2e-3;

#[derive(Module, Debug)]
struct Model {
    hidden: Linear,
    embedding: Linear,
    head: MarginHead,
}

impl Model {
    fn new(device: &Device) -> Self {
        // margin and scale that suit ten classes; papers have thousands
        let loss = MarginSoftmax::cheby_aam().with_margin(|m| m.m2 = 0.3).with_scale(16.0);
        Self {
            hidden: LinearConfig::new(PIXELS, HIDDEN).init(device),
            embedding: LinearConfig::new(HIDDEN, DIM).init(device),
            head: MarginHeadConfig::new(CLASSES, DIM, loss).init(device),
        }
    }

    fn embed(&self, images: Tensor<2>) -> Tensor<2> {
        self.embedding.forward(relu(self.hidden.forward(images)))
    }

    fn classify(&self, batch: Digits) -> ClassificationOutput {
        let embeddings = self.embed(batch.images);
        let scores = self.head.scores(embeddings.clone().detach());
        let loss = self.head.forward(embeddings, batch.labels.clone());
        ClassificationOutput::new(loss, scores, batch.labels)
    }
}

impl TrainStep for Model {
    type Input = Digits;
    type Output = ClassificationOutput;

    fn step(&self, batch: Digits) -> TrainOutput<ClassificationOutput> {
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Model {
    type Input = Digits;
    type Output = ClassificationOutput;

    fn step(&self, batch: Digits) -> ClassificationOutput {
        self.classify(batch)
    }
}

/// Pixels from 0 to 1, then the digit.
type Image = (Vec<f32>, i32);

#[derive(Clone, Debug)]
struct Digits {
    /// \[N, 64\]
    images: Tensor<2>,
    /// \[N\]
    labels: Tensor<1, Int>,
}

struct Pack;

impl Batcher<Image, Digits> for Pack {
    fn batch(&self, items: Vec<Image>, device: &Device) -> Digits {
        let (rows, labels) = (items.len(), items.iter().map(|(_, digit)| *digit).collect::<Vec<i32>>());
        let pixels: Vec<f32> = items.into_iter().flat_map(|(pixels, _)| pixels).collect();
        Digits {
            images: Tensor::from_data(TensorData::new(pixels, [rows, PIXELS]), device),
            labels: Tensor::from_data(TensorData::new(labels, [rows]), device),
        }
    }
}

/// Every fifth image is for testing.
fn load() -> Result<[Vec<Image>; 2]> {
    let (mut train, mut test) = (vec![], vec![]);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(GzDecoder::new(FILE));
    for (i, row) in reader.deserialize().enumerate() {
        let row: Vec<u8> = row?;
        let (digit, pixels) = row.split_last().ok_or("an empty row")?;
        let image = (pixels.iter().map(|&v| f32::from(v) / 16.0).collect(), i32::from(*digit));
        if i % 5 == 0 { test.push(image) } else { train.push(image) }
    }
    Ok([train, test])
}

fn main() -> Result {
    let device = margin_softmax_burn::init(Device::wgpu_options())?;
    device.seed(1);
    let [train, test] = load()?;
    let loader = |images: &[Image], shuffle: bool| {
        let builder = DataLoaderBuilder::new(Pack).batch_size(BATCH);
        let builder = if shuffle { builder.shuffle(1) } else { builder };
        builder.build(InMemDataset::new(images.to_vec()))
    };
    let files = tempfile::tempdir()?;
    let training = SupervisedTraining::new(files.path(), loader(&train, true), loader(&test, false))
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .num_epochs(EPOCHS)
        .with_application_logger(None)
        .summary();
    let model = Model::new(&device.clone().autodiff());
    let result = training.launch(Learner::new(model, AdamConfig::new().init(), RATE));
    if let Some(error) = result.error {
        return Err(error.to_string().into());
    }
    // the dashboard closes
    drop(result.renderer);

    let rows = test.len();
    let Digits { images, labels } = Pack.batch(test, &device);
    let scores = result.model.head.scores(result.model.embed(images));
    let right: i32 = scores.argmax(1).flatten::<1>(0, 1).equal(labels).int().sum().into_scalar();
    let accuracy = 100.0 * f64::from(right) / rows as f64;
    println!("accuracy on {rows} test images: {accuracy:.1} %");
    if accuracy > 90.0 { Ok(()) } else { Err("at least 90 % were expected".into()) }
}
