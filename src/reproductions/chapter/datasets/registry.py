"""Every data set the chapters may use: its files, their sizes and digests, license, citation.

Adding a data set is adding an entry to ``REGISTRY`` and, for a new format, a reader.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

__all__ = ["REGISTRY", "UCI_TASKS", "Citation", "DataFile", "Dataset", "Layout"]


@dataclass(frozen=True)
class Citation:
    """Whom to thank: the key in ``references.bib`` and the reference as text."""

    key: str
    text: str


@dataclass(frozen=True)
class DataFile:
    """One file of a data set.

    ``size`` is in bytes. A file is held to its SHA-256; ``md5`` is the digest its publisher
    prints, and the only one to go by where no copy was at hand to take the SHA-256 of.
    ``urls`` are its official mirrors in the order they are tried.
    """

    name: str
    size: int
    sha256: str | None = None
    md5: str | None = None
    urls: tuple[str, ...] = ()

    @property
    def digest(self) -> tuple[str, str]:
        """(algorithm of hashlib, expected hex digest)."""
        if self.sha256 is not None:
            return "sha256", self.sha256
        if self.md5 is not None:
            return "md5", self.md5
        raise ValueError(f"{self.name} is registered without a digest; give sha256 or md5")


@dataclass(frozen=True)
class Layout:
    """One form a data set is found in: all of ``files`` in one of ``folders``.

    Folders are relative to a data folder, ``.`` being that folder itself; the first is the one
    a download goes to.
    """

    folders: tuple[str, ...]
    files: tuple[DataFile, ...]


@dataclass(frozen=True)
class Dataset:
    """A data set. One without layouts ships with scikit-learn and is always there."""

    name: str
    title: str
    source: str
    license: str
    citations: tuple[Citation, ...]
    layouts: tuple[Layout, ...] = ()

    @property
    def download(self) -> Layout | None:
        """The layout that official mirrors offer, if any."""
        for layout in self.layouts:
            if all(file.urls for file in layout.files):
                return layout
        return None

    @property
    def n_bytes(self) -> int:
        """Bytes of a download, or of the first layout where nothing is downloaded."""
        layout = self.download or (self.layouts[0] if self.layouts else None)
        return sum(file.size for file in layout.files) if layout else 0


_PEDREGOSA = Citation(
    "pedregosa2011scikit",
    "F. Pedregosa et al. Scikit-learn: Machine Learning in Python. JMLR 12, 2825-2830, 2011.",
)
_UCI = Citation(
    "kelly2023uci",
    "M. Kelly, R. Longjohn, K. Nottingham. The UCI Machine Learning Repository. "
    "https://archive.ics.uci.edu",
)


def _embedded(name: str, title: str, uci_number: int, citation: Citation) -> Dataset:
    return Dataset(
        name=name,
        title=title,
        source=f"https://archive.ics.uci.edu/dataset/{uci_number} (copy shipped with scikit-learn)",
        license="CC BY 4.0 (UCI Machine Learning Repository)",
        citations=(citation, _PEDREGOSA),
    )


def _idx_files(
    mirrors: tuple[str, ...], rows: tuple[tuple[str, int, str, str | None], ...]
) -> tuple[DataFile, ...]:
    return tuple(
        DataFile(name, size, sha256, md5, tuple(f"{mirror}{name}" for mirror in mirrors))
        for name, size, md5, sha256 in rows
    )


_MNIST = Dataset(
    name="mnist",
    title="MNIST",
    source="http://yann.lecun.com/exdb/mnist/",
    license="CC BY-SA 3.0 as commonly distributed; derived from NIST Special Databases 1 and 3",
    citations=(
        Citation(
            "lecun1998gradient",
            "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner. Gradient-based learning applied to "
            "document recognition. Proceedings of the IEEE 86(11), 2278-2324, 1998.",
        ),
    ),
    layouts=(
        Layout(
            folders=("mnist", "MNIST/raw", "."),
            files=_idx_files(
                (
                    "https://ossci-datasets.s3.amazonaws.com/mnist/",
                    "https://storage.googleapis.com/cvdf-datasets/mnist/",
                ),
                (
                    (
                        "train-images-idx3-ubyte.gz",
                        9_912_422,
                        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    ),
                    (
                        "train-labels-idx1-ubyte.gz",
                        28_881,
                        "d53e105ee54ea40749a09fcbcd1e9432",
                        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    ),
                    (
                        "t10k-images-idx3-ubyte.gz",
                        1_648_877,
                        "9fb629c4189551a2d022fa330f9573f3",
                        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    ),
                    (
                        "t10k-labels-idx1-ubyte.gz",
                        4_542,
                        "ec29112dd5afa0611ce80d1b7f02629c",
                        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                    ),
                ),
            ),
        ),
    ),
)

_FASHION_MNIST = Dataset(
    name="fashion_mnist",
    title="Fashion-MNIST",
    source="https://github.com/zalandoresearch/fashion-mnist",
    license="MIT, (c) 2017 Zalando SE",
    citations=(
        Citation(
            "xiao2017fashion",
            "H. Xiao, K. Rasul, R. Vollgraf. Fashion-MNIST: a Novel Image Dataset for "
            "Benchmarking Machine Learning Algorithms. arXiv:1708.07747, 2017.",
        ),
    ),
    layouts=(
        Layout(
            folders=("fashion-mnist", "FashionMNIST/raw", "."),
            files=_idx_files(
                (
                    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
                    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                ),
                # No copy was at hand to take SHA-256 digests of, so the published MD5 is the check.
                (
                    (
                        "train-images-idx3-ubyte.gz",
                        26_421_880,
                        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                        None,
                    ),
                    (
                        "train-labels-idx1-ubyte.gz",
                        29_515,
                        "25c81989df183df01b3e8a0aad5dffbe",
                        None,
                    ),
                    (
                        "t10k-images-idx3-ubyte.gz",
                        4_422_102,
                        "bef4ecab320f06d8554ea6380940ec79",
                        None,
                    ),
                    ("t10k-labels-idx1-ubyte.gz", 5_148, "bb300cfdad3c16e7a12a480ee83cd310", None),
                ),
            ),
        ),
    ),
)

_CIFAR10 = Dataset(
    name="cifar10",
    title="CIFAR-10",
    source="https://www.cs.toronto.edu/~kriz/cifar.html",
    license="no formal license; its page asks for the citation",
    citations=(
        Citation(
            "krizhevsky2009learning",
            "A. Krizhevsky. Learning Multiple Layers of Features from Tiny Images. "
            "Technical report, University of Toronto, 2009.",
        ),
    ),
    layouts=(
        # The six batches one by one, xz-compressed.
        Layout(
            folders=("cifar-10", "."),
            files=(
                DataFile(
                    "data_batch_1.xz",
                    24_902_528,
                    "dcf35390b4cfc488661a300d572e8e7ecf995e33a63db72f8573ecd4b579e313",
                ),
                DataFile(
                    "data_batch_2.xz",
                    24_951_484,
                    "b7e332501592ef34d6728d983d8f62f3efb82798073d3d41d60d7bdac7c1ad49",
                ),
                DataFile(
                    "data_batch_3.xz",
                    24_954_760,
                    "75956db5170c6699d7f978d75213c068703bcc93492620920d1fd3d7d3d1f7fe",
                ),
                DataFile(
                    "data_batch_4.xz",
                    24_940_224,
                    "51c80c29bea995155557c6c3f82127b15e947c1b21a525fddd74fb1916d4b7c9",
                ),
                DataFile(
                    "data_batch_5.xz",
                    24_904_748,
                    "15d7ebbc222f65c4d5898cef1aaad340b95c83c430b97109ebaa2e26578f3ad6",
                ),
                DataFile(
                    "test_batch.xz",
                    24_919_744,
                    "0e2f13c798e32cd73409a4faf1bc61db36630b9605074ee93f427148a444161a",
                ),
            ),
        ),
        # The official archive, unpacked.
        Layout(
            folders=("cifar-10-batches-py", "cifar-10/cifar-10-batches-py", "cifar-10", "."),
            files=(
                DataFile(
                    "data_batch_1",
                    31_035_704,
                    "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
                    "c99cafc152244af753f735de768cd75f",
                ),
                DataFile(
                    "data_batch_2",
                    31_035_320,
                    "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
                    "d4bba439e000b95fd0a9bffe97cbabec",
                ),
                DataFile(
                    "data_batch_3",
                    31_035_999,
                    "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
                    "54ebc095f3ab1f0389bbae665268c751",
                ),
                DataFile(
                    "data_batch_4",
                    31_035_696,
                    "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
                    "634d18415352ddfa80567beed471001a",
                ),
                DataFile(
                    "data_batch_5",
                    31_035_623,
                    "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
                    "482c414d41f54cd18b22e5b47cb7c3cb",
                ),
                DataFile(
                    "test_batch",
                    31_035_526,
                    "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
                    "40351d587109b95175f43aff81a1287e",
                ),
            ),
        ),
        Layout(
            folders=("cifar-10", "."),
            files=(
                DataFile(
                    "cifar-10-python.tar.gz",
                    170_498_071,
                    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                    "c58f30108f718f92721af3b95e74349a",
                    ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
                ),
            ),
        ),
    ),
)


def _uci_files() -> dict[str, DataFile]:
    path = Path(__file__).with_name("uci_files.csv")
    with path.open(encoding="utf-8", newline="") as stream:
        return {
            row["file"]: DataFile(row["file"], int(row["bytes"]), row["sha256"])
            for row in csv.DictReader(stream)
        }


_UCI_FILES = _uci_files()
_HTRU2_FILE = _UCI_FILES.pop("htru2.csv.gz")

UCI_TASKS = tuple(name.removesuffix(".csv.gz") for name in _UCI_FILES if name.endswith(".csv.gz"))

# Nobody publishes the UCI tables in this joined form, so there is nothing to download: they are
# either in a folder of the reader's or their cells are skipped.
_UCI_TABLES = Dataset(
    name="uci",
    title="the UCI collection (108 tasks with their official splits)",
    source="https://github.com/hadijomaa/dataset2vec (tables and splits of the authors, joined)",
    license="CC BY 4.0 for the UCI tables; CC BY-NC 4.0 declared by the repository of this copy",
    citations=(
        Citation(
            "fernandez2014hundreds",
            "M. Fernández-Delgado, E. Cernadas, S. Barro, D. Amorim. Do we need hundreds of "
            "classifiers to solve real world classification problems? JMLR 15, 3133-3181, 2014.",
        ),
        Citation(
            "klambauer2017self",
            "G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter. Self-Normalizing Neural "
            "Networks. NeurIPS 30, 971-980, 2017.",
        ),
        Citation(
            "jomaa2021dataset2vec",
            "H. S. Jomaa, L. Schmidt-Thieme, J. Grabocka. Dataset2Vec: learning dataset "
            "meta-features. Data Mining and Knowledge Discovery 35, 964-985, 2021.",
        ),
        _UCI,
    ),
    layouts=(Layout(folders=("uci", "."), files=tuple(_UCI_FILES.values())),),
)

_HTRU2 = Dataset(
    name="htru2",
    title="HTRU2 (pulsar candidates)",
    source="https://archive.ics.uci.edu/dataset/372/htru2",
    license="CC BY 4.0 (UCI Machine Learning Repository)",
    citations=(
        Citation(
            "lyon2016fifty",
            "R. J. Lyon, B. W. Stappers, S. Cooper, J. M. Brooke, J. D. Knowles. Fifty years of "
            "pulsar candidate selection. MNRAS 459(1), 1104-1123, 2016.",
        ),
        _UCI,
    ),
    layouts=(Layout(folders=("uci", "htru2", "."), files=(_HTRU2_FILE,)),),
)

REGISTRY: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        _embedded(
            "digits",
            "handwritten digits, 8 x 8 pixels",
            80,
            Citation(
                "alpaydin1998optical",
                "E. Alpaydin, C. Kaynak. Optical Recognition of Handwritten Digits. "
                "UCI Machine Learning Repository, 1998.",
            ),
        ),
        _embedded(
            "breast_cancer",
            "breast cancer (diagnostic), Wisconsin",
            17,
            Citation(
                "street1993nuclear",
                "W. N. Street, W. H. Wolberg, O. L. Mangasarian. Nuclear feature extraction for "
                "breast tumor diagnosis. SPIE 1905, 861-870, 1993.",
            ),
        ),
        _embedded(
            "wine",
            "wine",
            109,
            Citation(
                "aeberhard1991wine",
                "S. Aeberhard, M. Forina. Wine. UCI Machine Learning Repository, 1991.",
            ),
        ),
        _embedded(
            "iris",
            "iris",
            53,
            Citation(
                "fisher1936use",
                "R. A. Fisher. The use of multiple measurements in taxonomic problems. "
                "Annals of Eugenics 7(2), 179-188, 1936.",
            ),
        ),
        _MNIST,
        _FASHION_MNIST,
        _CIFAR10,
        _UCI_TABLES,
        _HTRU2,
    )
}
