//! The papers behind the losses: every equation, proposition, figure and table that could be read, where it is here, and what came
//! out when its measurement was repeated.
//!
//! "Comes out" means that the measurement repeated here shows what the paper says of it, "does not come out" that it does not, with
//! the numbers. The data sets of the papers cannot be packaged: faces and VoxCeleb are lent on request, CIFAR is in no package. In
//! their place are synthetic and real voices, Fashion-MNIST and the small tables of UCI, and small networks, so an order of losses may
//! be compared, a level may not. All commands are examples, repeatable from their seed, and write a report under `out/`; `speakers`,
//! `margins`, `images` and `uci` have a `--quick` form of seconds. Tests are in `tests/host` unless a file is named.
//!
//! | paper | in one line |
//! |---|---|
//! | ArcFace | the formulas come out; its tables need face data |
//! | Unifying margins (AmpFace) | theory and collapse come out, and so does the order of the remedies; the conjecture about the best margin does not |
//! | ArcGrad | its formula for the scale comes out; its advantage on small tables does not, on images it is as good as ArcFace |
//! | ChebyAAM | the series comes out and bounds the slope; neither an explosion without it nor a better error rate was found |
//!
//! # ArcFace
//!
//! "ArcFace: Additive Angular Margin Loss for Deep Face Recognition" (CVPR 2019, and its longer form with sub-centers).
//!
//! | item | outcome | here | test | command |
//! |---|---|---|---|---|
//! | Eq. 1, softmax | comes out | [`MarginSoftmax::softmax`](crate::MarginSoftmax::softmax) | `golden_families` | `train --loss softmax` |
//! | Eq. 2, normalised | comes out | [`normface`](crate::MarginSoftmax::normface) | `golden::gradient_vectors_are_as_printed` | `train --loss normface` |
//! | Eq. 3, additive angular margin | comes out | [`arcface`](crate::MarginSoftmax::arcface) | the same | `train --loss arcface` |
//! | Eq. 4, m1, m2 and m3 together | comes out | [`unified`](crate::MarginSoftmax::unified) | the same; `gradients` by finite differences | `train --loss JSON` |
//! | Eq. 5 to 7: Intra-Loss, Inter-Loss, triplet loss | the paper's comparisons, not part of this library: they have no head of classes |  |  |  |
//! | sub-centers, the dominant one, rows beyond 75° dropped | comes out as formulas; there is no public set of faces with label noise to repeat it on | [`Shape::with_sub_centers`](crate::Shape::with_sub_centers), [`SubCenters`](crate::classes::SubCenters) | `classes` | `train --sub-centers 3` |
//! | the figure of target logits over the angle | comes out | [`target_value_slope`](crate::MarginSoftmax::target_value_slope) | `golden::slopes_are_as_printed` | `train`: the README's picture |
//! | statistics of angles (W-EC, W-Inter, Intra, Inter) | on digits and clothes only | [`monitor`](mod@crate::monitor) | `monitor` | `train`, `images` |
//! | tables on LFW, CFP-FP, AgeDB, IJB, MegaFace | data not available | [`verification`](mod@crate::verification) | `verification`, tests/verify.rs | `verify --format lfw\|ijb` scores your embeddings |
//!
//! # Unifying margins
//!
//! "Unifying Margin-Based Softmax Losses in Face Recognition" (WACV 2023): AmpFace, WC-ReLU, Reg_ss.
//!
//! | item | outcome | here | test | command |
//! |---|---|---|---|---|
//! | the family m0·cos(m1·θ + m2) − m3 | comes out | [`objective::Unified`](crate::objective::Unified) | `golden`, `gradients` | `train --loss ampface` |
//! | Eq. 7, WC-ReLU | comes out; the sum over the wrong classes is then [`ln_wrong_class_sum_rectified`](crate::theory::ln_wrong_class_sum_rectified): 53.330 a class where the plain one is 52.958 (s 64, d 512) | [`Others::Rectified`](crate::Others) | `golden::rectified_losses_are_as_printed` | `margins --remedies` |
//! | Prop. 1 and Eq. 8, nearest prototype | comes out for random prototypes and for trained ones without a margin (67.0° against 66.4°); Eq. 8 as printed is the closest pair of all, not the mean | [`nearest_prototype_angle`](crate::theory::nearest_prototype_angle), measured by [`Backend::nearest_prototype_angles`](crate::Backend::nearest_prototype_angles) | `nearest_prototypes` | `margins`, `margin_theory` |
//! | Prop. 2, mean angle within a cap | the formula comes out; as a prediction of M_intra it holds within 4° for m2 up to 0.4 in training, not with WC-ReLU and not on new utterances | [`mean_angle_within`](crate::theory::mean_angle_within) | `sphere`, also by sampling | `margin_theory` |
//! | Prop. 3, sum over the wrong classes, its condition e^{s²/d}/C | comes out; the deviation of the sum is 15 % at C 85,742, d 512, s 64, by the published formula 19 % | [`ln_wrong_class_sum`](crate::theory::ln_wrong_class_sum), [`ln_wrong_class_sum_variance`](crate::theory::ln_wrong_class_sum_variance) | `sphere`, also by sampling |  |
//! | Fig. 1, collapse in three dimensions | comes out for AmpFace; Reg_ss with λ = 10 does not prevent it there, WC-ReLU does | [`CollapseDetector`](crate::monitor::CollapseDetector) | tests/margins.rs | `margins --collapse` |
//! | Fig. 2, loss at equal angles; Fig. 3, curves over the angle | comes out | [`equal_angle_loss`](crate::theory::equal_angle_loss), [`row_loss`](crate::theory::row_loss), [`gradient`](crate::theory::gradient) | `sphere`, `theory` | `margin_theory` |
//! | Fig. 4, M_intra, M_inter and score over each margin; observation 1 | M_inter does not depend on m2 up to 0.7 (63° to 70°, theory 66°); it does on m3 (65° to 77°), m0 with WC-ReLU (65° to 87°) and m1 (65° to 44°) | [`Monitor`](crate::monitor::Monitor), [`DetectionCurve`](crate::verification::DetectionCurve) | tests/margins.rs | `margins --sweep m0 --sweep m1 --sweep m2 --sweep m3` |
//! | the conjecture that the best margin stops half way to the next prototype | does not come out for m0 (.715: EER 11.9 ± .3 %, lowest 10.8 ± .4 at .2); left open for m1, m2 and m3, whose EER hardly changes with the margin | [`optimal_margin`](crate::theory::optimal_margin) | `theory`, tests/margins.rs | the same |
//! | Fig. 5, the loss at m0 .35, m1 1.85, m2 .6, m3 .5 | comes out | [`row_loss`](crate::theory::row_loss) | `theory::optimal_margins_are_as_printed` | `margin_theory` |
//! | Fig. 6, the remedies over m0 | the order comes out at .8 to .35: EER at .5 is 25.4 % plain, 19.2 UniformFace, 16.1 Reg_ss, 11.7 WC-ReLU; at .2 UniformFace is worse than plain | [`Regularizer`](crate::Regularizer), [`Others::Rectified`](crate::Others) | tests/margins.rs `the_quick_form_has_the_published_order` | `margins --remedies` |
//! | m1 of 1.8 and more with SphereFace-R's flattened curve | comes out: accuracy in training at 1.85 is 0 to 6 % as it stands, 99 to 100 % flattened | [`Fallback`](crate::objective::Fallback) | tests/margins.rs | `margins --curve` |
//! | Table 2, benchmarks of all margins | data not available; on voices SphereFace at the predicted 1.604 is best (EER 9.5 ± .9 %, ArcFace 10.7 ± .5, NormFace 11.1 ± .5) |  | tests/margins.rs | `margins --table2` |
//! | polar collapse of AmpFace, and its warning | comes out: it warns in every run of AmpFace alone in 16 and 32 dimensions, in two of three with 8 voices in three dimensions, and in no healthy run | [`CollapseDetector`](crate::monitor::CollapseDetector) | tests/collapse.rs, tests/uci.rs | `uci --only collapse` |
//!
//! # ArcGrad
//!
//! "ArcGrad: Angular Gradient Margin Loss for Classification" (IJCNN 2020).
//!
//! | item | outcome | here | test | command |
//! |---|---|---|---|---|
//! | the loss, −θ for every class | comes out | [`arcgrad`](crate::MarginSoftmax::arcgrad) | `golden_families` | `train --loss arcgrad` |
//! | Eq. 4, 6: softmax, center loss and M-Softmax without a bias | as printed | [`softmax`](crate::MarginSoftmax::softmax), [`m_softmax`](crate::MarginSoftmax::m_softmax), [`CenterLoss`](crate::CenterLoss) | tests/uci.rs | `uci --only table` |
//! | Eq. 16, 17, 19, the scale from the gap | 19 comes out; 16 and 17 have a wrong sign and lack a factor s | [`arcgrad_scale`](crate::theory::arcgrad_scale) | `theory::arcgrad_scales_are_as_printed` | `uci --only scales` |
//! | Fig. 1, the gap over the scale | 84° at s = 1 and 2° at s = 40 come out as the steepest pull; trained gaps are larger (115° and 32°), since the pull does not end there | [`Report::mean_gap`](crate::monitor::Report::mean_gap) | tests/uci.rs | `uci --only scales` |
//! | Table I, fifteen tables of UCI | does not come out: mean accuracy of the eight sets that are available, published in brackets: softmax 79.98 (76.58), ArcFace 80.41 (76.22), ArcGrad 79.92 (79.48) and 80.10 (79.70) |  | tests/uci.rs | `uci --only table`, `--data DIR` for more sets |
//! | Table I, AdaCos at two classes | its scale would stay 0; the paper has 46 to 54 % there | refused as [`Error::Combination`](crate::Error::Combination) | tests/uci.rs | the same |
//! | depth: 33 % at ten layers for softmax, ArcFace, AdaCos | does not come out: 93 to 98 % for all losses, AdaCos 91 % on one set |  | tests/uci.rs | `uci --only depth` |
//! | Fig. 3, shares of the training set | does not come out: at 1 % of the images softmax leads (64.6 %, ArcGrad 62.8), from 2 % on ArcGrad and ArcFace do by a point |  | tests/images.rs | `images` |
//! | Fig. 4, angles over the epochs | angles shrink for all losses, least for softmax | [`Monitor`](crate::monitor::Monitor) | tests/images.rs | `images` |
//! | Table V, top-1 and top-5 | no difference in the top-5 (99.4 to 99.6 %) | [`Backend::predictor`](crate::Backend::predictor) | tests/images.rs | `images` |
//! | Eq. 22 and Table VI: W-Inter, C-Inter, WC-Intra | "softmax is the loosest" comes out (.98 rad), "ArcGrad the tightest" does not (.57; ArcFace .52, AdaCos .06) | [`mean_pair_angle`](crate::Backend::mean_pair_angle), [`ClassCenters`](crate::monitor::ClassCenters) | tests/images.rs | `images` |
//! | Table VII, accuracy at 1, 2, 5 and 10 epochs | ArcGrad leads softmax at ten epochs by 1.0 points (86.9 against 85.9 %), as ArcFace does (86.8), not by 15.5 % |  | tests/images.rs | `images` |
//! | a step's time beside softmax: 3.4 % | within 1 % |  |  | `images` |
//! | Tables II to IV | not in the text that could be read |  |  |  |
//!
//! # ChebyAAM
//!
//! "The Achilles' Heel of Angular Margins: A Chebyshev Polynomial Fix for Speaker Verification" (2026). Its abstract, its opening and
//! its public code could be read.
//!
//! | item | outcome | here | test | command |
//! |---|---|---|---|---|
//! | the Chebyshev series of cos(θ + m) by Clenshaw's recurrence | comes out | [`cheby_aam`](crate::MarginSoftmax::cheby_aam), [`chebyshev`](mod@crate::objective::chebyshev) | `series`, `golden` | `train --loss chebyaam` |
//! | the authors' least-squares fit | comes out, and trains as the closed form does | preset `chebyaam_fit` | `golden::fitted_coefficients_are_the_authors` | `speakers` |
//! | `pos_squash_k` of the code | worse on voices: EER 15.0 ± 1.6 % (k 2), 19.1 ± 1.8 (k 3), without it 12.0 | a custom [`Margin`](crate::Margin) in the example | tests/speakers.rs | `speakers` |
//! | the margin rises from 0 | used in every run | [`Schedules`](crate::objective::Schedules) | `schedule` | `speakers` |
//! | "the derivative of arccos explodes" | the slope by the cosine does (12, 115, 1139 at 1°, .1°, .01°; the series 4.9), the pull by the angle does not (.216, .200, .199), and training never comes near: the largest slope of 330 runs is 3.6 for AAM and 3.9 for ChebyAAM | [`target_value_slope`](crate::MarginSoftmax::target_value_slope) | tests/speakers.rs `the_slopes_are_those_of_the_formulas` | `speakers` |
//! | "a stronger signal to hard examples" | for low degrees only: the slope just above the threshold at m .2 is .65, .41, .04, −.18, .10 for degrees 3, 5, 9, 15, 30, exact 0; at m .3 and .5 degree 30 pulls the wrong way (−.07, −.04), which Jackson's damping mends | the same | the same | `speakers` |
//! | gradient norms over the steps | the same for both losses |  | tests/speakers.rs | `speakers` |
//! | better error rates on VoxCeleb, SITW, CN-Celeb | data not available; on 38 unseen synthetic voices both have 11.98 % (m .2), 11.80 and 11.79 (.3), 11.23 (.5); same-seed differences are below .05 points; on nine real speakers 93.7 % both | [`DetectionCurve`](crate::verification::DetectionCurve) | tests/speakers.rs | `speakers` |
//! | degree and damping | no effect from degree 15 on | [`Series`](crate::objective::Series) | tests/speakers.rs | `speakers` |
//! | the scale | matters more than any margin: EER 6.8 % at s = 2, 12.0 at 30 |  |  | `speakers` |
//!
//! # Measures
//!
//! Error rates are those of [`verification`](mod@crate::verification), which agree with scikit-learn's curves on 10⁵ scores (tests/host/verification.rs).
//! The example `verify` scores your own embeddings by a list of LFW, IJB or VoxCeleb.
//!
//! Margins "can also be learned", as the Unifying paper says: [`MarginGradients`](crate::data::MarginGradients) are checked by finite
//! differences on every engine, and the example `adaptive_margins` learns one for each class as AdaptiveFace does. Rare classes get
//! larger margins, as published (.64 to .74 with 124 images, .80 to .94 with 15; λ = 1), and are recognised more often: 90.5 ± 1.3 %
//! against 87.9 ± 1.4 % with a margin of .35 for all.
