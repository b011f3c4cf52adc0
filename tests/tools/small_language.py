"""Text of a small language, real and not: samplers whose quality and diversity are known."""

import random

import numpy as np


SUBJECTS = "the man|a woman|two dogs|a small cat|the old horse|a boy|some people|the bird".split("|")
VERBS = "rides|sees|follows|likes|paints|finds|carries|leaves".split("|")
OBJECTS = "a red ball|the wave|a big bike|an apple|the blue car|a kite|some bread|the river".split("|")
PLACES = "in the park|on the street|near a house|at the beach|by the tree|".split("|")


def sentences(seed, number):
    """Real text; different seeds give different sentences of the same language."""
    source = random.Random(seed)
    return [" ".join(map(source.choice, (SUBJECTS, VERBS, OBJECTS, PLACES))).strip() + " ." for _ in range(number)]


TRAIN, REFERENCES = sentences(0, 800), sentences(1, 800)
WORDS = sorted({word for text in TRAIN for word in text.split()})
SAMPLERS = {
    "real": sentences(2, 800),
    "untrained": [" ".join(random.Random(seed).choices(WORDS, k=8)) for seed in range(800)],
    "collapsed": [TRAIN[0]] * 800,
    "copying": random.Random(0).choices(TRAIN, k=800),
}


def encoder(texts):
    """Bags of words: an encoder that needs no download."""
    return np.array([[text.split().count(word) for word in WORDS] for text in texts], dtype=float)


def random_texts(seed, number, words="abcdef", longest=7):
    """Tokenized texts of letters, the first ones frequent."""
    source = random.Random(seed)
    weights = [2.0**-i for i in range(len(words))]
    return [source.choices(words, weights, k=source.randint(0, longest)) for _ in range(number)]
