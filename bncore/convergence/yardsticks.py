"""Other libraries' solvers as yardsticks: SciPy's L-BFGS and scikit-learn's logistic regression."""

import numpy as np
from scipy.optimize import minimize

from bncore.convergence.halfspace import EmpiricalHalfspace
from bncore.convergence.problem import Problem, WeightsLike, of_kind
from bncore.convergence.start import plain_start
from bncore.convergence.trace import Recorder, Trace


def lbfgs(
    problem: Problem,
    w0: WeightsLike,
    *,
    steps: int = 100,
    tolerance: float | int = 0.0,
) -> Trace:
    """SciPy's L-BFGS-B without bounds; parameters and result as for ``gradient_descent``.

    An iteration may evaluate f several times; ``seconds`` counts all of them.
    """
    w, recorder = plain_start(problem, w0), Recorder(steps, tolerance, "L-BFGS")

    class Enough(Exception):
        pass

    lines = {}

    def objective(w):
        line = problem.line(w.copy())
        gradient = line.gradient(1.0)
        lines.clear()
        lines[w.tobytes()] = line, gradient
        return line.value(1.0), gradient

    def record(w):
        line, gradient = lines.get(w.tobytes(), (None, None))
        if line is None:
            line = problem.line(w.copy())
            gradient = line.gradient(1.0)
        if not recorder.add(line, 1.0, gradient):
            raise Enough

    with recorder.until_unresolved():
        try:
            objective(w)
            record(w)
            found = minimize(
                objective, w, jac=True, method="L-BFGS-B", callback=record,
                options={"maxiter": max(steps, 1), "maxfun": 20 * (steps + 1), "ftol": 0.0, "gtol": 0.0},
            )  # fmt: skip
            if len(recorder.rows) <= steps:
                status = "budget" if found.status == 1 else "stalled"
                recorder.stop(status, f"L-BFGS ended: {found.message}")
        except Enough:
            pass
    return recorder.trace()


def logistic_regression(problem: EmpiricalHalfspace, *, tolerance: float | int = 1e-10) -> Trace:
    """scikit-learn's unregularised logistic regression, by its Newton solver, from 0 to its end.

    The trace has two rows: scikit-learn does not show its iterates.

    Raises
    ------
    TypeError, ValueError
        If the problem is not an ``EmpiricalHalfspace`` with the softplus loss.
    """
    from sklearn.linear_model import LogisticRegression

    of_kind(problem, EmpiricalHalfspace)
    if problem.loss.name != "softplus":
        raise ValueError(
            f"problem has the loss {problem.loss.name}, expected softplus, that of logistic regression"
        )
    recorder = Recorder(1, 0.0, "Logistic regression")
    line = problem.line(np.zeros(problem.dimension))
    recorder.add(line, 1.0, line.gradient(1.0))
    # scikit-learn wants two classes: half of the rows are given as -z with the label 1.
    labels = np.where(np.arange(problem.Z.shape[0]) % 2, 1.0, -1.0)
    model = LogisticRegression(
        C=np.inf, fit_intercept=False, solver="newton-cholesky", tol=tolerance, max_iter=1000
    )
    model.fit(-labels[:, np.newaxis] * problem.Z, labels)
    line = problem.line(model.coef_[0].astype(np.float64))
    recorder.add(line, 1.0, line.gradient(1.0))
    return recorder.trace()
