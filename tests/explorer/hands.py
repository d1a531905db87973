"""What a person does on the page, and reads there."""


def state(page):
    return page.evaluate("explorer.state()")


def settle(page):
    page.wait_for_function("explorer.settled()")


def headline(page) -> str:
    return page.locator("#verdict").inner_text()


def slide(page, key: str, place: float) -> None:
    """Move a slider as a pointer does: the value, then the event."""
    page.locator(f"#{key}-slider").evaluate(
        "(slider, place) => { slider.value = place; slider.dispatchEvent(new Event('input', { bubbles: true })); }",
        place,
    )


def write(page, key: str, text: str) -> None:
    page.locator(f"#{key}").fill(text)
    page.locator(f"#{key}").press("Enter")
