"""How far the codes of poisoned images are from their own clean codes, and from one another.

    L_a = mean_i d_H(a_i, c_i)         L_c = 1 / (M (M - 1)) sum_i sum_{j != i} d_H(a_i, a_j)

with d_H(a, b) = (K - <a, b>) / 2, which for codes of ±1 is the Hamming distance. The sum of L_c is
over ordered pairs. It is largest if in every bit half of the codes are +1 (see `most_dispersed`).
"""

from torch import Tensor


def distances(codes: Tensor, own: Tensor) -> dict[str, float | None]:
    """L_a and L_c of some images, in bits, and their shares of the largest possible values.

    Args:
        codes: a (M,K), in [-1,1].
        own: c (M,K), the codes of the clean images.

    Returns:
        ``l_a``, ``l_c``, ``l_a_share`` and ``l_c_share``; L_c of less than two images is None.
    """
    count, bits = codes.shape
    codes, own = codes.double(), own.double()
    l_a = float((bits - (codes * own).sum(1)).mean() / 2)
    found: dict[str, float | None] = {"l_a": l_a, "l_a_share": l_a / bits}
    if count < 2:
        return {**found, "l_c": None, "l_c_share": None}
    # sum over i != j of <a_i, a_j>, without a matrix of pairs
    products = codes.sum(0).square().sum() - codes.square().sum()
    l_c = float(bits - products / (count * (count - 1))) / 2
    return {**found, "l_c": l_c, "l_c_share": l_c / most_dispersed(count, bits)}


def most_dispersed(count: int, bits: int) -> float:
    """The largest L_c of M = ``count`` codes of ``bits`` bits.

    In each bit, ⌊M/2⌋ codes of one sign and ⌈M/2⌉ of the other make 2 ⌊M/2⌋ ⌈M/2⌉ ordered pairs
    that differ: K M² / (2 M (M - 1)) for even M, and K (M² - 1) / (2 M (M - 1)) for odd M.
    """
    return bits * 2 * (count // 2) * ((count + 1) // 2) / (count * (count - 1))
