//! The golden numbers of every further family, computed in float64 outside this crate: losses per row (reduction none),
//! gradients of the mean.

use margin_softmax::{objective::*, *};

use crate::common::printed;

const X: [f64; 4] = [3.0, 4.0, -1.0, 2.0];
const W: [f64; 6] = [1.0, 1.0, 0.0, 2.0, -3.0, 1.0];
const Y: [i64; 2] = [0, 2];

/// `dX` and `dW` are those of the mean; the losses those of the rows.
struct Golden {
    loss: MarginSoftmax,
    state: fn(&mut State),
    losses: &'static str,
    dx: &'static str,
    dw: &'static str,
}

fn same(what: &str, found: &[f64], digits: &str) {
    let digits: Vec<&str> = digits.split(' ').collect();
    assert_eq!(found.len(), digits.len(), "{what}");
    for (i, (found, digits)) in found.iter().zip(digits).enumerate() {
        printed(format_args!("{what}[{i}]"), *found, digits);
    }
}

fn batch() -> Batch<'static, i64, f64> {
    Batch { embeddings: &X, prototypes: &W, labels: &Y, ..Default::default() }
}

fn run(loss: &MarginSoftmax, want: Want, state: fn(&mut State)) -> Output<f64> {
    let shape = Shape::new(2, 3, 2).unwrap();
    let mut at = State::new(loss, shape).unwrap();
    state(&mut at);
    reference::evaluate_with(loss, shape, want, &batch(), &at).unwrap()
}

fn goldens() -> Vec<Golden> {
    let s8 = |loss: MarginSoftmax| loss.with_scale(8.0);
    let adaface = Adaptive::AdaFace(AdaFace { margin: 0.4, concentration: 0.333, rate: 0.01 });
    vec![
        Golden {
            loss: s8(MarginSoftmax::arcgrad()),
            state: |_| {},
            losses: ".0179214 2.6492020",
            dx: "-.0227350 .0170513 2.9737356 1.4868678",
            dw: ".0320592 -.0320592 -1.8195986 0 -.3717166 -1.1151499",
        },
        Golden {
            loss: s8(MarginSoftmax::li_arcface()),
            state: |_| {},
            losses: ".4681637 3.7185635",
            dx: "-.3046396 .2284797 1.9877433 .9938716",
            dw: ".4536543 -.4536543 -.7448159 0 -.2483038 -.7449113",
        },
        Golden {
            loss: s8(MarginSoftmax::curricularface()),
            state: |s| s.hardness = 0.3,
            losses: ".6893749 6.2970752",
            dx: "-.3821541 .2866156 3.0242887 1.5121444",
            dw: ".5948244 -.5948244 -1.2655140 0 -.3830880 -1.1492639",
        },
        Golden {
            loss: s8(MarginSoftmax::named("mv_am").unwrap()),
            state: |_| {},
            losses: "4.1758922 7.3307748",
            dx: "-.5428418 .4071314 1.9890287 .9945144",
            dw: ".2776016 -.2776016 .3457664 0 -.2826547 -.8479640",
        },
        Golden {
            loss: s8(MarginSoftmax::named("mv_am").unwrap())
                .with_others(Others::MvSoftmax(MvSoftmax { fixed: true, ..Default::default() })),
            state: |_| {},
            losses: "2.9350237 5.9032737",
            dx: "-.4493049 .3369787 1.8434493 .9217247",
            dw: ".2640798 -.2640798 .2459903 0 -.2820608 -.8461824",
        },
        Golden {
            loss: s8(MarginSoftmax::named("mv_arc").unwrap()),
            state: |_| {},
            losses: ".6893749 7.9384188",
            dx: "-.3821541 .2866156 2.3967999 1.1983999",
            dw: ".5876458 -.5876458 -.4711246 0 -.3836579 -1.1509737",
        },
        Golden {
            loss: s8(MarginSoftmax::named("arcnegface").unwrap()),
            state: |_| {},
            losses: "2.9273283 4.9106931",
            dx: "-.7987915 .5990936 2.3182443 1.1591222",
            dw: ".9529319 -.9529319 .5504453 0 -.3809919 -1.1429756",
        },
        Golden {
            loss: s8(MarginSoftmax::named("arcface_topk").unwrap())
                .with_others(Others::TopK(TopK { count: 1, margin: 0.06 })),
            state: |_| {},
            losses: ".3527173 2.9960768",
            dx: "-.1685882 .1264411 1.8706739 .9353369",
            dw: ".1849828 -.1849828 -.4128798 0 -.3167214 -.9501643",
        },
        Golden {
            loss: MarginSoftmax::named("modified_softmax").unwrap().with_scale(1.5),
            state: |_| {},
            losses: ".2156397 1.1454778",
            dx: "-.1029023 .0425873 .5306668 .3308798",
            dw: "-.0167644 .0167644 -.0054028 0 -.0808508 -.2425523",
        },
        Golden {
            loss: MarginSoftmax::named("a_softmax").unwrap().with_margin(|m| m.m1 = 3.0),
            state: |_| {},
            losses: ".4554901 3.8452857",
            dx: "-.2819146 .1851524 .8481814 1.2321117",
            dw: ".4547902 -.4547902 .0814019 0 -.2317743 -.6953229",
        },
        Golden {
            loss: MarginSoftmax::m_softmax(),
            state: |_| {},
            losses: "1.7014151 .4926992",
            dx: "-.4087902 .4087865 .5927623 .1852876",
            dw: "-1.2355871 -1.6166998 1.0410719 2.0057210 .1945152 -.3890213",
        },
        Golden {
            loss: s8(MarginSoftmax::sphereface2()),
            state: |_| {},
            losses: "1.5831687 2.5772042",
            dx: "-.2790920 .2093190 1.3741477 .6870738",
            dw: "-.1001770 .1001770 .1485937 0 -.1787877 -.5363632",
        },
        Golden {
            loss: s8(MarginSoftmax::adaface()).with_adaptive(adaface),
            state: |s| (s.norm_mean, s.norm_deviation) = (4.0, 2.0),
            losses: "2.2649814 4.4819848",
            dx: "-.3873197 .2904898 1.9570575 .9785287",
            dw: ".1166882 -.1166882 .1995292 0 -.3104330 -.9312991",
        },
        Golden {
            loss: s8(MarginSoftmax::magface()).with_margin(|m| m.fallback = Fallback::None).with_adaptive(
                Adaptive::MagFace(MagFace {
                    lower_length: 1.0,
                    upper_length: 10.0,
                    lower_margin: 0.45,
                    upper_margin: 0.8,
                    weight: 0.5,
                }),
            ),
            state: |_| {},
            losses: "1.1195877 5.1402555",
            dx: "-.4806461 .4343981 2.1960350 1.2104622",
            dw: ".8384089 -.8384089 -.1231401 0 -.3807291 -1.1421873",
        },
    ]
}

#[test]
fn every_family_gives_its_golden_numbers() {
    for Golden { loss, state, losses, dx, dw } in goldens() {
        let name = format!("{} + {} + {}", loss.target.name(), loss.others.name(), loss.adaptive.name());
        let out = run(&loss, Want::ALL.with_bias(), state);
        same(&format!("losses of {name}"), &out.row_losses, losses);
        same(&format!("dX of {name}"), &out.grad_embeddings, dx);
        same(&format!("dW of {name}"), &out.grad_prototypes, dw);
        if loss.link.name() == "binary" {
            same("db", &out.grad_bias, ".1747121");
        }
        if loss.adaptive.name() == "magface" {
            printed("total", out.loss, "3.1299216");
        }
    }
}

/// One dynamic step of AdaCos on the golden data.
#[test]
fn adacos_follows_the_batch() {
    let (loss, shape) = (MarginSoftmax::adacos(), Shape::new(2, 3, 2).unwrap());
    let mut state = State::new(&loss, shape).unwrap();
    printed("s0 of 3 classes", state.scale, ".980258");
    reference::train(&loss, shape, Want::LOSS, &batch(), &mut state).unwrap();
    printed("s1", state.scale, "1.21982437");
    assert_eq!(state.step, 1);
    for (classes, expected) in
        [(10, "3.107345"), (100, "6.498481"), (1211, "10.038619"), (5994, "12.301321"), (85_742, "16.064174")]
    {
        printed(classes, State::new(&loss, Shape::new(1, classes, 1).unwrap()).unwrap().scale, expected);
    }
}
