"""Input and options that mean nothing are refused with what is wrong."""

import math

import numpy as np
import pytest
import torch
from codes_and_labels import Data, random_data
from torch import Tensor

from hashbackdoor_bench import metrics
from hashbackdoor_bench.metrics.ranking import (
    average_precision,
    bootstrap,
    hit_at,
    mean_distance,
    pack,
    precision_within,
    rank,
    shares_no_tag,
    unpack,
)


def changed(position: int, value: Tensor) -> Data:
    data = list(random_data(3, 5, 8, 2))
    data[position] = value
    return tuple(data)


NOT_A_CODE = torch.ones(3, 8)
NOT_A_CODE[1, 2] = 0
NAN_CODE = torch.ones(5, 8)
NAN_CODE[4, 7] = math.nan


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(0, NOT_A_CODE), r"query_codes: 0.0 in row 1, column 2 .* torch.sign"),
        (changed(2, NAN_CODE), r"database_codes: nan in row 4, column 7 is neither"),
        (changed(0, torch.ones(3, 9)), r"different lengths: .*'query_codes': 9"),
        (changed(2, torch.ones(5, 2, dtype=torch.uint8)), r"2 packed bytes .* do not hold 8 bits"),
        (changed(0, torch.ones(8)), r"query_codes: expected the shape"),
        (changed(1, torch.full((3, 2), 2)), r"query_labels: expected 0 and 1 only"),
        (changed(3, torch.full((5, 2), math.nan)), r"database_labels: expected 0 and 1 only"),
        (changed(1, torch.ones(4, 2)), r"3 query_codes with 4 query_labels"),
        (changed(3, torch.ones(4, 2)), r"5 database_codes with 4 database_labels"),
        (changed(3, torch.ones(5, 3)), r"2 classes against 3"),
        (changed(3, torch.ones(5)), r"database_labels: expected the shape"),
    ],
)
def test_bad_input_is_refused_with_what_is_wrong(data, message):
    with pytest.raises(ValueError, match=message):
        average_precision(*data, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": -2}, "top_k=-2"),
        ({"ties": "stable"}, "ties='stable': choose one of expected, seeded"),
        ({"empty": "drop"}, "empty='drop'"),
        ({"normalizer": "none"}, "normalizer='none'"),
        ({"bits": 9}, "different lengths"),
        ({"ids": torch.arange(4)}, "ids: expected 5 integers"),
        ({"ids": torch.rand(5)}, "ids: expected 5 integers"),
        ({"ids": torch.zeros(5, dtype=torch.int64)}, "one id names two items"),
    ],
)
def test_bad_options_are_refused_with_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        average_precision(*random_data(3, 5, 8, 2), **{"top_k": 3} | options)


def test_packed_codes_are_refused_where_codes_are_wanted_and_the_other_way_round():
    packed = torch.zeros(2, 1, dtype=torch.uint8)
    with pytest.raises(ValueError, match="uint8 means packed already"):
        pack(packed)
    with pytest.raises(ValueError, match="expected uint8"):
        unpack(torch.ones(2, 1), 8)
    with pytest.raises(ValueError, match="do not hold 9 bits"):
        unpack(packed, 9)
    with pytest.raises(ValueError, match="expected the shape"):
        pack(torch.ones(3))
    with pytest.raises(ValueError, match=r"-0\.5 in row 0"):
        pack(torch.tensor([[-0.5]]))


def test_figures_refuse_what_they_cannot_mean():
    ranking = rank(*random_data(3, 5, 8, 2))
    with pytest.raises(ValueError, match="radius=-1"):
        precision_within(ranking, -1)
    with pytest.raises(ValueError, match="top_k=0"):
        hit_at(ranking, 0)
    with pytest.raises(ValueError, match="different lengths"):
        mean_distance(torch.ones(2, 8), torch.ones(9))
    with pytest.raises(ValueError, match="2 classes against 3"):
        shares_no_tag(torch.ones(4, 2), torch.ones(3))
    for values, options in ((torch.ones(2, 2), {}), (torch.ones(2), {"confidence": 1.0})):
        with pytest.raises(ValueError, match="expected values"):
            bootstrap(values, **options)


@pytest.mark.parametrize("wrong", [2, 255, -1, 0.5, math.nan])
def test_a_label_that_is_neither_zero_nor_one_is_refused_in_every_dtype(wrong):
    query, query_labels, database, labels = random_data(5, 40, 16, 6)
    dtype = torch.uint8 if wrong in (2, 255) else torch.float32
    labels = labels.to(dtype)
    labels[7, 3] = wrong
    with pytest.raises(ValueError, match="0 and 1 only"):
        rank(query, query_labels, database, labels)


@pytest.mark.parametrize("wrong", [1.5, math.nan, True, np.True_, "3", torch.tensor(3), 0, -2])
def test_a_cut_off_that_is_no_positive_whole_number_is_refused(wrong):
    query, labels = torch.tensor([[1, 1]]), torch.ones(1, 1)
    database, ours = torch.tensor([[1, 1], [1, -1]]), torch.ones(2, 1)
    with pytest.raises(ValueError, match="top_k"):
        metrics.average_precision(query, labels, database, ours, wrong)
    ranking = metrics.rank(query, labels, database, ours)
    for function in (metrics.hit_at, metrics.no_hit_fraction, metrics.score_all):
        with pytest.raises(ValueError, match="top_k"):
            function(ranking, wrong)


@pytest.mark.parametrize("wrong", [1.5, math.nan, True, -1])
def test_other_counts_must_be_whole_numbers_too(wrong):
    codes, labels = torch.tensor([[1, 1], [1, -1]]), torch.ones(2, 1)
    ranking = metrics.rank(codes, labels, codes, labels)
    with pytest.raises(ValueError, match="radius"):
        metrics.precision_within(ranking, wrong)
    with pytest.raises(ValueError, match="n="):
        metrics.nearest(codes, codes, wrong)
    with pytest.raises(ValueError, match="draw"):
        metrics.bootstrap(torch.ones(3), draws=wrong)
    with pytest.raises(ValueError, match="bits"):
        metrics.rank(codes, labels, codes, labels, bits=wrong)


def test_whole_numbers_of_numpy_are_taken():
    codes, labels = torch.tensor([[1, 1], [1, -1]]), torch.ones(2, 1)
    both = [metrics.average_precision(codes, labels, codes, labels, k) for k in (2, np.int64(2))]
    assert torch.equal(*both)
