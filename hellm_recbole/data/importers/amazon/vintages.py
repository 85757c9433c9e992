"""The three vintages of the Amazon review data, which differ in format and in the names of their fields.

`amazon2014`  reviews in JSON lines; each line of the metadata is a Python dict literal, which is parsed, never run
`amazon2018`  JSON lines; some titles are the script of a web page, some items have several lines of metadata
`amazon2023`  JSON lines; times in milliseconds; the item is the parent of its variants
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Vintage:
    """Format of one publication of the data, and the names of the fields that are read.

    Attributes:
        name: key in `VINTAGES`.
        user: field of the user in a review.
        item: field of the item in a review.
        time: field of the time in a review.
        time_unit: unit of `time`, counted since 1970.
        metadata: format of a line of metadata: JSON or a Python literal.
        meta_item: field of the item in the metadata, the same id as in the reviews.
        title: field of the title in the metadata.
        brand: field of the brand in the metadata.
        categories: field of the categories in the metadata.
        description: field of the description in the metadata.
        images: fields of the picture addresses in the metadata, best first.
    """

    name: str
    user: str
    item: str
    time: str
    time_unit: Literal["seconds", "milliseconds"]
    metadata: Literal["json", "literal"]
    meta_item: str
    title: str
    brand: str
    categories: str
    description: str
    images: tuple[str, ...]


VINTAGES: Mapping[str, Vintage] = {
    vintage.name: vintage
    for vintage in (
        Vintage(
            name="amazon2014",
            user="reviewerID",
            item="asin",
            time="unixReviewTime",
            time_unit="seconds",
            metadata="literal",
            meta_item="asin",
            title="title",
            brand="brand",
            categories="categories",
            description="description",
            images=("imUrl",),
        ),
        Vintage(
            name="amazon2018",
            user="reviewerID",
            item="asin",
            time="unixReviewTime",
            time_unit="seconds",
            metadata="json",
            meta_item="asin",
            title="title",
            brand="brand",
            categories="category",
            description="description",
            images=("imageURLHighRes", "imageURL"),
        ),
        Vintage(
            name="amazon2023",
            user="user_id",
            item="parent_asin",
            time="timestamp",
            time_unit="milliseconds",
            metadata="json",
            meta_item="parent_asin",
            title="title",
            brand="store",
            categories="categories",
            description="description",
            images=("images",),
        ),
    )
}
