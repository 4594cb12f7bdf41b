r"""From tokens to formulas: recursive descent over LaTeX as people write it, with `\frac12` and `2 \sin x \cos x`."""

from collections.abc import Callable, Sequence
from fractions import Fraction

from siri.problems.grading.algebra import (
    chosen,
    determinant,
    divide_by,
    in_brackets,
    joined,
    multiply,
    negative,
    node_of,
    proper_fraction,
    read_repeating,
    scale,
    series,
    transposed,
    variable,
)
from siri.problems.grading.arithmetic import FUNCTION_NAMES, FUNCTIONS_OF_MANY, Node, number
from siri.problems.grading.tokens import BRACKETS, CLOSERS, Cursor, MalformedError, Token, UnreadableError
from siri.problems.grading.values import Collection, Expression, Matrix, Region, Tuple, Value
from siri.problems.grading.vocabulary import words_of

GREEK = words_of(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi omicron rho "
    "varrho sigma tau upsilon phi varphi chi psi omega Alpha Beta Gamma Delta Epsilon Zeta Eta Theta Iota "
    "Kappa Lambda Mu Nu Xi Omicron Pi Rho Sigma Tau Upsilon Phi Chi Psi Omega ell hbar angle triangle ldots "
    "square prime top"
)
_ACCENTS = words_of("overline bar vec hat widehat tilde dot ddot overrightarrow widetilde")
_SET_SIGNS = {r"\cup": "union", r"\cap": "intersection", r"\setminus": "difference", r"\backslash": "difference"}
_MOST_BARS = 6
_TIMES = frozenset(["*", r"\cdot", r"\times", r"\ast"])
_OVER = frozenset(["/", r"\div"])
_TRANSPOSE = tuple(Node("variable", name=name) for name in ("T", "top", "t"))
_INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot"}
_ENVIRONMENTS = words_of("matrix pmatrix bmatrix Bmatrix vmatrix array smallmatrix")
_ALIASES = {"inf": "infinity", "infty": "infinity", "oo": "infinity", "pi": "pi", "infinity": "infinity"}


Inside = Callable[[Sequence[Token]], tuple["Value", ...]]
"""Reads what a bracket holds: a list of answers."""


def read_formula(tokens: Sequence[Token], inside: Inside) -> Value:
    """The value of tokens that hold no relation and no list outside brackets. Raises UnreadableError."""
    if not tokens:
        raise UnreadableError("nothing")
    reader = _Reader(tokens, inside)
    value = reader.set_expression()
    if reader.place < len(tokens):
        raise UnreadableError(f"{reader.peek()} where it should end")
    if isinstance(value, Expression):
        decimal = len(tokens) <= 2 and tokens[-1].kind == "number" and "." in tokens[-1].text
        return Expression(value.node, decimal)
    return value


class _Reader(Cursor):
    """A place among tokens; each method reads one thing and moves on."""

    def __init__(self, tokens: Sequence[Token], inside: Inside) -> None:
        super().__init__(tokens)
        self.inside = inside
        self.bars = 0

    # Sets, sums, products

    def set_expression(self) -> Value:
        """Sets joined by union, intersection and difference, from the left; or a sum."""
        value = self.sum()
        while self.peek() in _SET_SIGNS or (isinstance(value, Region) and self.peek() == "-"):
            operation = _SET_SIGNS.get(self.take().text, "difference")
            value = Region(operation, (value, self.sum()))
        return value

    def sum(self) -> Value:
        """Terms with signs between."""
        value = self._signed(self.product)
        while self.peek() in ("+", "-") and isinstance(value, Expression):
            sign, term = self.take().text, node_of(self._signed(self.product))
            value = joined("sum", value.node, term if sign == "+" else Node("negative", (term,)))
        return value

    def _signed(self, read: Callable[[], Value]) -> Value:
        if self.peek() not in ("+", "-"):
            return read()
        sign, value = self.take().text, self._signed(read)
        if sign == "+":
            return value
        return scale(number(-1), value) if not isinstance(value, Expression) else negative(value.node)

    def product(self) -> Value:
        """Factors, side by side or with signs between; `/` reaches no further than the next factor."""
        value = self.factor()
        while True:
            if self.peek() in _TIMES:
                self.take()
                value = multiply(value, self._signed(self.factor))
            elif self.peek() in _OVER:
                self.take()
                bottom = node_of(self._signed(self.factor))
                value = divide_by(value, bottom)
            elif self._starts_factor():
                self._refuse_two_numbers()
                value = chosen(value, factor := self.factor()) or multiply(value, factor)
            else:
                return value

    def _starts_factor(self) -> bool:
        if self.place >= len(self.tokens):
            return False
        token = self.tokens[self.place]
        if token.text == "|":
            return self.bars == 0
        if token.kind == "command":
            return (
                token.text not in _SET_SIGNS
                and token.text not in CLOSERS
                and token.text not in (r"\over", r"\choose", r"\end")
            )
        return token.kind != "sign" or token.text in ("(", "[", "{", r"\{")

    def _refuse_two_numbers(self) -> None:
        """`3 4` is neither 34 nor 12."""
        before, here = self.tokens[self.place - 1], self.tokens[self.place]
        scripted = self.place > 1 and self.tokens[self.place - 2].text in ("^", "_")
        if before.kind in ("number", "repeating") and here.kind in ("number", "repeating") and not scripted:
            raise MalformedError("two numbers side by side")

    # Factors

    def factor(self) -> Value:
        """An atom with its powers and factorials."""
        value = self.atom()
        while True:
            text = self.peek()
            if text == "!":
                self.take()
                if self.peek() == "!":
                    raise UnreadableError("a double factorial")
                value = Expression(Node("factorial", (node_of(value),)))
            elif text == "^":
                self.take()
                if self.peek() == r"\circ":
                    self.take()
                    value = Expression(Node("product", (node_of(value), Node("constant", name="degree"))))
                elif isinstance(value, Matrix | Tuple):
                    if self.script() not in _TRANSPOSE:
                        raise UnreadableError("a power of a matrix")
                    value = transposed(value)
                else:
                    value = Expression(Node("power", (node_of(value), self.script())))
                    if self.peek() == "^":
                        raise UnreadableError("a power of a power without brackets")
            elif text == "'" and isinstance(value, Expression) and value.node.operation == "variable":
                self.take()
                value = variable(value.node.name + "'")
            else:
                return value

    def script(self) -> Node:
        """What a `^` raises to: a group, a signed number, one symbol."""
        if self.peek() in ("+", "-"):
            return node_of(self._signed(self.atom))
        return node_of(self.atom())

    def argument(self) -> Node:
        r"""What a command reads: a group, or the next thing alone, of `\frac12` one digit."""
        token = self.tokens[self.place] if self.place < len(self.tokens) else self.take()
        if token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
            self.tokens[self.place] = Token("number", token.text[1:])
            return number(int(token.text[0]))
        return node_of(self.atom())

    def atom(self) -> Value:
        """A number, a symbol, a command with what it reads, or something in brackets."""
        token = self.take()
        if token.kind == "number":
            return self._number(token)
        if token.kind == "repeating":
            return Expression(number(read_repeating(token.text)))
        if token.kind in ("symbol", "word"):
            return self._symbol(token)
        if token.text == "{":
            return self._group()
        if token.text == "|":
            return self._bars()
        if token.text in BRACKETS:
            return self._bracketed(token.text)
        if token.kind == "command":
            return self._command(token.text[1:])
        raise UnreadableError(token.text)

    def _number(self, token: Token) -> Value:
        value = number(Fraction(token.text))
        if self.peek() == "_":
            raise MalformedError("digits in a base, among other things")
        if token.text.isdigit():
            fraction, taken = proper_fraction(self.tokens[self.place : self.place + 7])
            self.place += taken
            if taken:
                return Expression(Node("sum", (value, number(fraction))))
        return Expression(value)

    def _symbol(self, token: Token) -> Value:
        text = token.text if len(token.text) == 1 else f"word {token.text.lower()}"
        if self.peek() == "_":
            return self._subscripted(text)
        if text in ("e", "i"):
            return Expression(Node("constant", name=text))
        return variable(text)

    def _subscripted(self, name: str) -> Value:
        self.take()
        token = self.take()
        texts, depth = [token.text], int(token.text == "{")
        while depth:
            token = self.take()
            depth += (token.text == "{") - (token.text == "}")
            texts.append(token.text)
        return variable(f"{name}_{''.join(text for text in texts if text not in '{}')}")

    def _group(self) -> Value:
        r"""`{…}`, of which `{a \over b}` and `{n \choose k}` are kinds."""
        bars, self.bars = self.bars, 0
        value = self.set_expression()
        if self.peek() in (r"\over", r"\choose"):
            operation = {r"\over": "quotient", r"\choose": "binomial"}[self.take().text]
            value = Expression(Node(operation, (node_of(value), node_of(self.sum()))))
        self.expect("}")
        self.bars = bars
        return value

    def _bars(self) -> Value:
        self.bars += 1
        if self.bars > _MOST_BARS:
            raise UnreadableError("too many bars")
        value = self.sum()
        self.expect("|")
        self.bars -= 1
        return determinant(value.rows) if isinstance(value, Matrix) else Expression(Node("abs", (node_of(value),)))

    def _bracketed(self, opening: str) -> Value:
        closing = (")", "]") if opening in ("(", "[") else (BRACKETS[opening],)
        depth, start = 0, self.place
        while depth or self.peek() not in closing:
            text = self.take().text
            depth += (text in BRACKETS or text == "{") - (text in CLOSERS)
        items = self.inside(self.tokens[start : self.place])
        return in_brackets(opening, self.take().text, items)

    # Commands

    def _command(self, name: str) -> Value:
        if name in _ALIASES:
            return Expression(Node("constant", name=_ALIASES[name]))
        if name in GREEK:
            return self._subscripted(name) if self.peek() == "_" else variable(name)
        if name in _ACCENTS:
            return self._accented(name)
        if name == "frac":
            return Expression(Node("quotient", (self.argument(), self.argument())))
        if name == "binom":
            return Expression(Node("binomial", (self.argument(), self.argument())))
        if name == "sqrt":
            return self._root()
        if name == "mathbb":
            return self._blackboard()
        if name == "begin":
            return self._environment()
        if name == "emptyset":
            return Collection(())
        if name in ("sum", "prod"):
            return self._series("sum" if name == "sum" else "product")
        if name in FUNCTIONS_OF_MANY:
            return self._function_of_many(name)
        if name in FUNCTION_NAMES or name in ("log", "ln", "lg"):
            return self._function(name)
        raise (MalformedError if "cancel" in name else UnreadableError)(name)

    def _series(self, operation: str) -> Value:
        r"""`\sum_{k=1}^{10} k^2` with whole bounds, term by term."""
        self.expect("_")
        self.expect("{")
        index = self.take().text
        self.expect("=")
        first = node_of(self.sum())
        self.expect("}")
        self.expect("^")
        last = self.script()
        return series(operation, index, (first, last), node_of(self._signed(self.product)))

    def _function_of_many(self, name: str) -> Value:
        inside = self.atom()
        items = inside.items if isinstance(inside, Tuple | Collection) else (inside,)
        return Expression(Node(name, tuple(node_of(item) for item in items)))

    def _accented(self, name: str) -> Value:
        depth, texts = 0, [name]
        while True:
            text = self.take().text
            depth += (text == "{") - (text == "}")
            texts.append(text)
            if depth == 0:
                return variable(" ".join(text for text in texts if text not in "{}"))

    def _root(self) -> Value:
        index = []
        if self.peek() == "[":
            self.take()
            index = [node_of(self.sum())]
            self.expect("]")
        inside = node_of(self.atom())
        return Expression(Node("sqrt", (inside, *index)))

    def _blackboard(self) -> Value:
        letter = "".join(token.text for token in [self.take()])
        if letter == "{":
            letter = self.take().text
            self.expect("}")
        return Region("line") if letter == "R" else variable(f"mathbb {letter}")

    def _environment(self) -> Value:
        name = self._environment_name()
        if name == "array" and self.peek() == "{":
            while self.take().text != "}":
                pass
        rows: list[list[Value]] = [[]]
        if name not in _ENVIRONMENTS:
            raise UnreadableError(name)
        while self.peek() != r"\end":
            if self.peek() == r"\\":
                self.take()
                rows.append([])
            elif self.peek() == "&":
                self.take()
            else:
                rows[-1].append(self.sum())
        self.take()
        self._environment_name()
        kept = tuple(tuple(row) for row in rows if row)
        if not kept or len({len(row) for row in kept}) != 1:
            raise UnreadableError("rows of several lengths")
        if len(kept) == len(kept[0]) == 1:
            return kept[0][0]
        return determinant(kept) if name == "vmatrix" else Matrix(kept)

    def _environment_name(self) -> str:
        self.expect("{")
        letters = []
        while self.peek() != "}":
            letters.append(self.take().text)
        self.take()
        return "".join(letters)

    def _function(self, name: str) -> Value:
        power: Node | None = None
        base: tuple[Node, ...] = ()
        while self.peek() in ("^", "_"):
            if self.take().text == "^":
                power = self.script()
            else:
                base = (self.argument(),)
        if power == number(-1) and name in _INVERSE:
            name, power = _INVERSE[name], None
        argument = self._function_argument()
        if name == "lg":
            base = (number(10),)
        if name in ("ln", "log", "lg"):
            node = Node("natural log" if name == "ln" else "log", (argument, *base))
        elif base:
            raise UnreadableError(f"a subscript of {name}")
        else:
            node = Node(name, (argument,))
        return Expression(Node("power", (node, power)) if power else node)

    def _function_argument(self) -> Node:
        """What stands in brackets behind a function, or the factors up to the next sign or function."""
        if self.peek() in ("(", "[", "{", "|"):
            return node_of(self.atom())
        if self.peek() == "-":
            return node_of(self._signed(self.factor))
        node = node_of(self.factor())
        while self._starts_factor() and self.peek()[1:] not in FUNCTION_NAMES | {"log", "ln"} and self.peek() != "(":
            self._refuse_two_numbers()
            node = Node("product", (node, node_of(self.factor())))
        return node
