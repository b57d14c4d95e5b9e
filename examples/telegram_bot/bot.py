"""What the bot does with each message."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import telegram
from telegram import Update
from telegram.constants import ChatAction
from telegram.ext import Application, CommandHandler, ContextTypes, MessageHandler, filters

from examples.telegram_bot.allowance import Allowance, AllSpent
from examples.telegram_bot.conversations import Conversations
from examples.telegram_bot.messages import PACE_S, GrowingMessages
from inference.engine import Message
from p2p.embed import DRAFT, SUMMARISE
from p2p.embed_portal import AsyncioClient
from p2p.errors import Error, PaymentError, Refused
from p2p.story import gram

TRANSLATE = "Translate what the user gives you into {language}. Answer with the translation alone."
SUMMARY_WORDS = 100

HELP = """\
I ask a model that a stranger runs, and pay for the answer.

Just write, and we talk. Or:
/summarise TEXT: what it says, in few words
/draft WISH: a text such as you wish
/translate LANGUAGE TEXT: the same in another language
/budget: what you may still spend today
/new: forget what we said

Instead of giving a text, answer the message that has it. Whoever answers reads what you write, and so does Telegram."""

BUSY = "One at a time, please: I am still at your last one."
ALL_SPENT = "Today's budget is spent. It begins anew at midnight UTC."
OVER_BUDGET = "That could cost more than is left of your budget. Ask for less, or wait for midnight UTC."
CANNOT_PAY = "I cannot pay for answers at the moment. That is for my owner to mend; please try again later."
NOBODY = "Nobody who runs this model answers at the moment. Please try again in a minute."

_log = logging.getLogger(__name__)


def kindly(error: Error) -> str:
    """What a user is told of it. The error's own text is for the owner: it may tell of the wallet."""
    if isinstance(error, Refused):
        known = {
            "over_budget": OVER_BUDGET,
            "too_long": "That is too long for this model. Give me less, or begin anew with /new.",
            "busy": "Everybody who could answer is busy. Please try again in a minute.",
        }
        return known.get(error.reason, NOBODY)
    return CANNOT_PAY if isinstance(error, PaymentError) else NOBODY


def given(message: telegram.Message) -> tuple[str, str]:
    """What stands behind a command, and the text of the message that it answers."""
    _, _, words = (message.text or "").partition(" ")
    return words.strip(), (message.reply_to_message.text or "") if message.reply_to_message else ""


class Bot:
    """The handlers, and whom they answer just now."""

    def __init__(self, client: AsyncioClient, allowance: Allowance, pace_s: float = PACE_S) -> None:
        self._client = client
        self._allowance = allowance
        self._pace_s = pace_s
        self._conversations = Conversations()
        self._answering: set[int] = set()

    def handle(self, application: Application) -> None:  # type: ignore[type-arg] # six parameters, none of them ours
        """Private chats only: in a group everybody would spend, and everybody would read."""
        private = filters.ChatType.PRIVATE & filters.UpdateType.MESSAGE
        commands = {
            ("start", "help"): self.help,
            ("summarise", "summarize"): self.summarise,
            ("draft",): self.draft,
            ("translate",): self.translate,
            ("budget",): self.budget,
            ("new",): self.new,
        }
        for names, does in commands.items():
            application.add_handler(CommandHandler(names, does, private))
        application.add_handler(MessageHandler(private & filters.COMMAND, self.help))
        application.add_handler(MessageHandler(private & filters.TEXT, self.chat))

    async def help(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        await _message(update).reply_text(HELP)

    async def budget(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, limits = _message(update), self._allowance.limits
        left = gram(self._allowance.left_nano(_user(message)))
        await message.reply_text(f"{left} is left for today; an answer costs {gram(limits.answer_nano)} at most.")

    async def new(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message = _message(update)
        self._conversations.forget(message.chat_id)
        await message.reply_text("It is forgotten. What shall we talk about?")

    async def summarise(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message = _message(update)
        words, answered = given(message)
        if text := words or answered:
            await self._answer(message, _asked(SUMMARISE.format(words=SUMMARY_WORDS), text))
        else:
            await message.reply_text("Of what? Write /summarise and the text, or answer a message with /summarise.")

    async def draft(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message = _message(update)
        wish, about = given(message)
        if wish:
            await self._answer(message, _asked(DRAFT, f"{wish}\n\n{about}".strip()))
        else:
            await message.reply_text("What shall I write? For example: /draft decline this invitation politely")

    async def translate(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message = _message(update)
        words, answered = given(message)
        language, _, text = words.partition(" ")
        if language and (text := text.strip() or answered):
            await self._answer(message, _asked(TRANSLATE.format(language=language), text))
        else:
            await message.reply_text("Into what? For example: /translate French Good morning")

    async def chat(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message = _message(update)
        asked = self._conversations.asked(message.chat_id, message.text or "")
        if text := await self._answer(message, asked):
            self._conversations.answered(message.chat_id, asked, text)

    async def _answer(self, message: telegram.Message, asked: Sequence[Message]) -> str:
        """Answer, or say kindly why not. The text of the answer, if it is whole."""
        user = _user(message)
        if user in self._answering:
            await message.reply_text(BUSY)
            return ""
        self._answering.add(user)
        try:
            return await self._buy(message, user, asked)
        except AllSpent:
            await message.reply_text(ALL_SPENT)
        except Error as error:
            _log.warning("no answer (%s): %s", error.word, error)
            await message.reply_text(kindly(error))
        finally:
            self._answering.discard(user)
        return ""

    async def _buy(self, message: telegram.Message, user: int, asked: Sequence[Message]) -> str:
        reservation, reply = self._allowance.reserve(user), None
        growing = GrowingMessages(message, self._pace_s)
        try:
            await message.reply_chat_action(ChatAction.TYPING)
            async with self._client.chat(asked, cost_max_nano=reservation.nano) as answer:
                reply = answer.reply
                async for piece in answer:
                    await growing.add(piece)
        finally:
            cost_nano = reply.cost_nano if reply else 0  # also of an answer that ended early
            self._allowance.settle(reservation, cost_nano)
        left = gram(self._allowance.left_nano(user))
        await growing.add(f"\n\n({gram(cost_nano)}; {left} is left for today)")
        await growing.flush()
        return reply.text


def _asked(task: str, text: str) -> Sequence[Message]:
    return Message("system", task), Message("user", text)


def _message(update: Update) -> telegram.Message:
    assert update.message is not None  # of the kinds of updates that are handled
    return update.message


def _user(message: telegram.Message) -> int:
    assert message.from_user is not None  # as in every private chat
    return message.from_user.id
