"""HTML as a test looks at it: elements with their attributes, children and text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"input", "link", "meta", "rect"}


@dataclass(slots=True)
class Element:
    """An element, or the document itself."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)

    def all(self, *tags: str) -> list[Element]:
        """The elements inside that have one of these tags, or all."""
        return [element for element in self._inside() if not tags or element.tag in tags]

    def one(self, tag: str, **attributes: str) -> Element:
        """The only element inside that has this tag and these attributes."""
        (found,) = (
            element for element in self.all(tag) if attributes.items() <= element.attributes.items()
        )
        return found

    @property
    def text(self) -> str:
        """All text inside, with single spaces."""
        return " ".join("".join(self._words()).split())

    def _inside(self) -> Iterator[Element]:
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child._inside()

    def _words(self) -> Iterator[str]:
        for child in self.children:
            if isinstance(child, str):
                yield child
            else:
                yield from child._words()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        assert len(element.attributes) == len(attrs), f"an attribute of {tag} is there twice"
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, f"{tag} ends what it did not begin"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(text: str) -> Element:
    """Read a document; every element has to be closed."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    (document,) = reader.open
    return document
