//! GPTQ against what it must be.

use proptest::prelude::*;

use super::testing::{Numbers, correlated, textbook_factor, weights, without_inputs};
use super::*;

fn options(order: Order) -> SolverOptions {
    SolverOptions { order, threads: 2, ..SolverOptions::default() }
}

fn nf4() -> Codebook {
    Codebook::new((0..16).map(|i| ((f64::from(i) - 7.5) / 5.0).sinh() as f32 / 2.13).collect())
}

/// Each group fitted and each weight rounded by itself.
fn round_to_nearest<G: Grid>(weights: &Matrix, grid: &G, group: usize) -> (Vec<u8>, Vec<G::Group>) {
    let (mut codes, mut groups) = (Vec::new(), Vec::new());
    for row in 0..weights.rows() {
        for weights in weights.row(row).chunks(group) {
            let fitted = grid.fit(weights);
            codes.extend(weights.iter().map(|&weight| grid.code(&fitted, weight)));
            groups.push(fitted);
        }
    }
    (codes, groups)
}

/// GPTQ without blocks, column by column, in the arithmetic of `T` with the factor given.
fn plain_gptq<
    G: Grid,
    T: Copy + From<f32> + std::ops::Sub<Output = T> + std::ops::Mul<Output = T> + std::ops::Div<Output = T>,
>(
    weights: &Matrix,
    factor: &[Vec<T>],
    grid: &G,
    group: usize,
    single: impl Fn(T) -> f32,
) -> Vec<u8> {
    let mut codes = Vec::new();
    for row in 0..weights.rows() {
        let mut row: Vec<T> = weights.row(row).iter().map(|&weight| T::from(weight)).collect();
        let mut fitted = None;
        for j in 0..row.len() {
            if j % group == 0 {
                let end = row.len().min(j + group);
                fitted = Some(grid.fit(&row[j..end].iter().map(|&weight| single(weight)).collect::<Vec<f32>>()));
            }
            let fitted = fitted.as_ref().unwrap();
            let code = grid.code(fitted, single(row[j]));
            codes.push(code);
            let error = (row[j] - T::from(grid.value(fitted, code))) / factor[j][j];
            for k in j + 1..row.len() {
                row[k] = row[k] - error * factor[j][k];
            }
        }
    }
    codes
}

fn rows_of(factor: &Factor) -> Vec<Vec<f32>> {
    factor.upper.as_ref().unwrap().chunks(factor.columns()).map(<[f32]>::to_vec).collect()
}

#[test]
fn without_statistics_weights_are_rounded_to_nearest() {
    fn check<G: Grid<Group: PartialEq + std::fmt::Debug>>(grid: &G) {
        let weights = weights(70, 150, 3);
        for (order, fit, group) in [
            (Order::Stored, Fit::Compensated, 16),
            (Order::Activation, Fit::Static, 64),
            (Order::Activation, Fit::Compensated, 999),
        ] {
            let solver = Solver::new(&Statistics::identity(150), options(order)).unwrap();
            let solved = solver.gptq(&weights, grid, group, fit).unwrap();
            assert_eq!((solved.codes, solved.groups), round_to_nearest(&weights, grid, group));
            assert_eq!(solved.order, None, "all columns are equal");
        }
    }
    check(&Affine::new(3));
    check(&Affine::new(8));
    check(&nf4());
    check(&Ternary);
}

/// A diagonal Hessian has nothing to be passed on either, whatever the path.
#[test]
fn independent_inputs_round_to_nearest() {
    let weights = weights(5, 140, 9);
    let hessian = (0..140 * 140).map(|at| if at % 141 == 0 { 1.0 + (at % 5) as f32 } else { 0.0 }).collect();
    let solver = Solver::new(&Statistics::new(140, hessian).unwrap(), options(Order::Stored)).unwrap();
    let solved = solver.gptq(&weights, &Affine::new(4), 20, Fit::Compensated).unwrap();
    assert_eq!((solved.codes, solved.groups), round_to_nearest(&weights, &Affine::new(4), 20));
}

#[test]
fn the_factor_is_that_of_the_paper() {
    let statistics = without_inputs(&correlated(60, 5), &[7, 31]);
    for order in [Order::Stored, Order::Activation] {
        let solver = Solver::new(&statistics, options(order)).unwrap();
        let expected = textbook_factor(&statistics, &solver.order, 0.01);
        for (row, expected) in rows_of(&solver.factor).iter().zip(expected) {
            let greatest = expected.iter().fold(0.0f64, |most, c| most.max(c.abs()));
            for (&c, expected) in row.iter().zip(expected) {
                assert!((f64::from(c) - expected).abs() <= 1e-6 * greatest, "{c} and {expected}");
            }
        }
    }
}

#[test]
fn blocks_change_no_bit() {
    for (columns, group) in [(300, 16), (300, 100), (290, 129), (300, 1000), (128, 128), (33, 7), (1, 1)] {
        let weights = weights(37, columns, 11);
        let solver = Solver::new(&correlated(columns, 4), options(Order::Stored)).unwrap();
        let solved = solver.gptq(&weights, &Affine::new(3), group, Fit::Compensated).unwrap();
        let plain = plain_gptq(&weights, &rows_of(&solver.factor), &Affine::new(3), group, |weight| weight);
        assert!(solved.codes == plain, "{columns} columns in groups of {group}");
    }
}

/// In double precision throughout, with the textbook factor: another code is chosen only where two are as near.
#[test]
fn it_is_the_algorithm_of_the_paper() {
    let (weights, statistics) = (weights(40, 64, 21), correlated(64, 8));
    let order: Vec<u32> = (0..64).collect();
    let factor = textbook_factor(&statistics, &order, 0.01);
    let solver = Solver::new(&statistics, options(Order::Stored)).unwrap();
    for group in [8, 64] {
        let solved = solver.gptq(&weights, &Affine::new(4), group, Fit::Compensated).unwrap();
        let plain = plain_gptq(&weights, &factor, &Affine::new(4), group, |weight: f64| weight as f32);
        let different = solved.codes.iter().zip(&plain).filter(|(a, b)| a != b).count();
        assert!(different * 200 < plain.len(), "{different} of {}", plain.len());
    }
}

#[test]
fn outputs_are_better_than_rounded_to_nearest() {
    fn check(grid: &impl Grid, group: usize, at_most: f64) {
        let (weights, statistics) = (weights(96, 200, 2), correlated(200, 6));
        let nearest = Solver::new(&Statistics::identity(200), options(Order::Stored)).unwrap();
        let decoded = nearest.gptq(&weights, grid, group, Fit::Static).unwrap().decode(grid);
        let before = output_error(&weights, &decoded, &statistics);
        for (order, fit) in [Order::Stored, Order::Activation]
            .into_iter()
            .flat_map(|order| [(order, Fit::Compensated), (order, Fit::Static)])
        {
            let solver = Solver::new(&statistics, options(order)).unwrap();
            let decoded = solver.gptq(&weights, grid, group, fit).unwrap().decode(grid);
            let after = output_error(&weights, &decoded, &statistics);
            assert!(after < at_most * before, "{order:?} {fit:?}: {after} and {before}");
        }
    }
    check(&Affine::new(4), 32, 0.5);
    check(&Affine::new(2), 200, 0.7);
    check(&nf4(), 64, 0.5);
    check(&Ternary, 200, 0.8);
}

#[test]
fn any_number_of_threads_gives_the_same() {
    let (weights, statistics) = (weights(150, 90, 2), correlated(90, 6));
    let solve = |threads| {
        let solver = Solver::new(&statistics, SolverOptions { threads, ..options(Order::Activation) }).unwrap();
        let spqr = solver.spqr(&weights, SpqrOptions { outliers: Outliers::Share(0.01), ..SpqrOptions::default() });
        (solver.gptq(&weights, &Affine::new(4), 16, Fit::Compensated).unwrap(), spqr.unwrap())
    };
    let one = solve(1);
    for threads in [2, 3, 16] {
        assert!(solve(threads) == one, "{threads} threads");
    }
}

#[test]
fn a_multiple_of_the_statistics_gives_the_same() {
    let (weights, statistics) = (weights(40, 50, 2), correlated(50, 6));
    let scaled = statistics.hessian().unwrap().iter().map(|h| h * 1024.0).collect();
    let solve = |statistics: &Statistics| {
        let solver = Solver::new(statistics, options(Order::Stored)).unwrap();
        solver.gptq(&weights, &Affine::new(4), 16, Fit::Compensated).unwrap()
    };
    assert!(solve(&statistics) == solve(&Statistics::new(50, scaled).unwrap()));
}

#[test]
fn columns_are_solved_by_what_their_inputs_are() {
    let statistics = correlated(70, 3);
    let solver = Solver::new(&statistics, options(Order::Activation)).unwrap();
    let solved = solver.gptq(&weights(3, 70, 1), &Affine::new(4), 16, Fit::Compensated).unwrap();
    let order = solved.order.unwrap();
    assert!(order.is_sorted_by(|&a, &b| statistics.diagonal(a as usize) >= statistics.diagonal(b as usize)));
    let mut sorted = order;
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..70));

    let equal = Statistics::new(3, vec![2.0, 1.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 3.0]).unwrap();
    assert_eq!(Solver::new(&equal, options(Order::Activation)).unwrap().order, [2, 0, 1]);
}

#[test]
fn dead_columns_become_0_and_do_not_matter() {
    let statistics = without_inputs(&correlated(48, 3), &[0, 17, 47]);
    let mut weights = weights(20, 48, 7);
    for order in [Order::Stored, Order::Activation] {
        let solver = Solver::new(&statistics, options(order)).unwrap();
        let solved = solver.gptq(&weights, &Affine::new(4), 16, Fit::Static).unwrap();
        let spqr = solver.spqr(&weights, SpqrOptions::default()).unwrap();
        for row in 0..20 {
            for column in [0, 17, 47] {
                assert_eq!(solved.decode(&Affine::new(4)).row(row)[column], 0.0);
                weights.row_mut(row)[column] = 1e3;
            }
        }
        assert!(solver.gptq(&weights, &Affine::new(4), 16, Fit::Static).unwrap() == solved);
        assert!(solver.spqr(&weights, SpqrOptions::default()).unwrap() == spqr);
    }
}

#[test]
fn damping_grows_until_the_hessian_can_be_factored() {
    // Two inputs that are always the same.
    let same = Statistics::new(2, vec![1.0; 4]).unwrap();
    let solver = Solver::new(&same, SolverOptions { damping: 0.0, ..SolverOptions::default() }).unwrap();
    assert_eq!(solver.damping(), 1e-6);
    assert_eq!(Solver::new(&same, SolverOptions::default()).unwrap().damping(), 0.01);
    // No sum of squares, but near enough.
    let indefinite = Statistics::new(2, vec![1.0, 3.0, 3.0, 1.0]).unwrap();
    let solver = Solver::new(&indefinite, SolverOptions::default()).unwrap();
    assert!((solver.damping() - 10.0).abs() < 1e-9, "{}", solver.damping());
    let hopeless = Statistics::new(2, vec![1.0, 1e6, 1e6, 1.0]).unwrap();
    assert_eq!(Solver::new(&hopeless, SolverOptions::default()).err().unwrap().code(), Code::BadSource);
}

#[test]
fn what_cannot_be_solved_is_refused() {
    let code = |result: Result<Gptq<AffineGroup>>| result.unwrap_err().code();
    let solver = Solver::new(&correlated(8, 3), SolverOptions::default()).unwrap();
    let grid = Affine::new(4);
    assert_eq!(code(solver.gptq(&weights(2, 7, 1), &grid, 4, Fit::Static)), Code::InvalidArgument);
    assert_eq!(code(solver.gptq(&weights(2, 8, 1), &grid, 0, Fit::Static)), Code::InvalidArgument);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut weights = weights(2, 8, 1);
        weights.row_mut(1)[3] = value;
        let error = solver.gptq(&weights, &grid, 4, Fit::Static).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("[1, 3]"), "{error}");
    }
    for (damping, threads) in [(-0.1, 1), (f64::NAN, 1), (f64::INFINITY, 1), (0.01, 0)] {
        let options = SolverOptions { damping, threads, order: Order::Stored };
        assert_eq!(Solver::new(&Statistics::identity(3), options).err().unwrap().code(), Code::InvalidArgument);
    }
}

#[test]
fn matrices_may_be_empty() {
    for (rows, columns) in [(0, 0), (0, 5), (5, 0), (1, 1)] {
        for statistics in [Statistics::identity(columns), correlated(columns, 1)] {
            let solver = Solver::new(&statistics, SolverOptions::default()).unwrap();
            let weights = weights(rows, columns, 1);
            let solved = solver.gptq(&weights, &Affine::new(4), 16, Fit::Compensated).unwrap();
            assert_eq!(solved.decode(&Affine::new(4)).data().len(), rows * columns);
            let solved = solver.spqr(&weights, SpqrOptions::default()).unwrap();
            assert_eq!(solved.decode().data().len(), rows * columns);
        }
    }
}

proptest! {
    /// Whatever symmetric matrix is said to be a Hessian, and whatever the weights are, an answer is an error or finite.
    #[test]
    fn hostile_statistics_do_no_harm(seed in any::<u64>(), columns in 1usize..20, exponent in -44i32..38, large in -30i32..38) {
        let mut numbers = Numbers(seed | 1);
        let mut hessian = vec![0.0; columns * columns];
        for i in 0..columns {
            for j in 0..=i {
                let spread = 10f64.powi(exponent) * 10f64.powf(3.0 * numbers.normal());
                let value = (if i == j { spread.abs() } else { spread * numbers.normal() }) as f32;
                let value = value.clamp(f32::MIN, f32::MAX);
                hessian[i * columns + j] = value;
                hessian[j * columns + i] = value;
            }
        }
        let data = (0..3 * columns).map(|_| (10f64.powi(large) * numbers.normal()) as f32).collect();
        let weights = Matrix::new(3, columns, data);
        let statistics = Statistics::new(columns, hessian).unwrap();
        if let Ok(solver) = Solver::new(&statistics, SolverOptions::default()) {
            let finite = |matrix: Matrix| matrix.data().iter().all(|weight| weight.is_finite());
            if let Ok(solved) = solver.gptq(&weights, &Affine::new(4), 8, Fit::Compensated) {
                prop_assert!(finite(solved.decode(&Affine::new(4))));
            }
            if let Ok(solved) = solver.gptq(&weights, &Ternary, columns, Fit::Static) {
                prop_assert!(finite(solved.decode(&Ternary)));
            }
            if let Ok(solved) = solver.spqr(&weights, SpqrOptions::default()) {
                prop_assert!(finite(solved.decode()));
            }
        }
    }
}
