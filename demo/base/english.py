"""Everyday English: common words, roughly from the most to the least frequent, written by hand.

They teach the tokenizer the words of ordinary requests and the model their embeddings, since the
other word lists know mostly nouns. The rank says how often a word is drawn, as in real text (Zipf).
"""

from __future__ import annotations

import itertools
import random

_TEXT = """
the to and a i my you of in is it for on that with me this have be do can not at what are your was
from how if an will or as please by but so we there they about when which all would just get no up
one out need has want like he she any more some time been did am our now would could should know
why where does make go may who their them then than its had were only other new also after back
here two over us because before into off see way use help day first find take tell set show give
let still even many much most last next every again same good well too very long much best right
left don't it's i'm can't what's i've didn't isn't won't there's doesn't i'd wasn't you're that's
work call change keep put try ask send add open close start stop check turn play book read write
buy pay order move look think say come feel seem leave bring hold run live believe happen provide
sit stand lose meet include continue learn lead understand watch follow create speak allow spend
grow walk win offer remember love consider appear wait serve die expect build stay fall cut reach
kill remain suggest raise pass sell require report decide pull return explain hope develop carry
break receive agree support remove hit produce eat cover catch draw choose cause point listen
realize place hear forget reset cancel confirm update share save delete search rate list remind
schedule wake sleep switch dim lock unlock record skip pause resume volume alarm timer reminder
calendar event meeting message text email phone number address name date today tomorrow tonight
yesterday morning afternoon evening night week weekend month year hour minute second monday
tuesday wednesday thursday friday saturday sunday january february march april may june july
august september october november december spring summer autumn winter noon midnight early late
soon money cash card credit debit bank account balance payment transfer transaction statement fee
charge cost price amount total exchange currency dollar dollars euro euros pound pounds pin code
limit deposit withdraw withdrawal machine receipt bill tax rent loan interest insurance salary
budget savings cheque check top auto direct statement pending declined failed received wrong extra
missing lost stolen expired frozen blocked active activate activated valid verify identity
passport document security reason problem issue question answer information details page site app
website online computer screen file folder picture photo camera video movie film show series music
song songs album artist playlist track band genre radio station podcast news weather rain snow sun
wind cloud storm temperature warm cold hot cool humid forecast degrees restaurant table food
dinner lunch breakfast coffee tea water bread cheese meat fish chicken rice egg eggs milk sugar
salt recipe cook calories healthy spicy sweet reservation reserve people party hotel room flight
plane train bus car taxi ride traffic road street bridge map directions route distance miles mile
kilometers gas station airport travel trip vacation ticket tickets visa luggage carry stars review
rating points point book novel author chapter story textbook essay saga theater theatre cinema
near nearby nearest closest around between house home door window kitchen bedroom bathroom garage
garden light lights lamp heating house roof floor wall family mother father mom dad sister brother
son daughter wife husband friend friends child children kid kids man woman boy girl baby person
doctor teacher driver boss dog cat bird horse city town country state world school college
university office company business job store shop market hospital church park beach mountain river
lake island north south east west united states america france germany england spain italy canada
mexico china japan india brazil africa european american french german english spanish italian
chinese japanese language word words spell translate mean meaning definition define joke funny
fact facts game games sport football team player ball race win score big small large little great
high low old young short tall wide deep heavy light fast slow easy hard difficult simple free full
empty clean dirty new used happy sad angry sorry tired sick busy ready sure able possible
important different similar special public private real true false white black red blue green
yellow better worse less least few several both each either neither another such own enough quite
rather almost always never often sometimes usually maybe perhaps already yet ago once twice three
four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand
million half quarter third percent plus minus equal into through during without within against
across along behind beyond inside outside under above below until since while though although
however therefore instead otherwise whether unless except despite something anything nothing
everything someone anyone everyone nobody somewhere anywhere everywhere thing things stuff kind
sort type part piece side end beginning middle top bottom line list group system program process
plan project service customer product item items size color shape quality quantity value level
rule rules law power energy fire air oil gas electric battery charge engine tire pressure repair
fix broken damage speak speaking talking calling looking trying going doing making taking using
getting working playing waiting asking telling paying sending coming leaving moving changing
adding checking charging went got made took came saw gave found told asked used tried called
worked needed wanted paid sent bought sold changed added moved opened closed started stopped
charged taken given seen gone done written known shown thanks thank hello hi hey goodbye bye yes
yeah okay ok alright welcome
"""

COMMON = tuple(dict.fromkeys(_TEXT.split()))  # a word keeps its first rank

# Flatter than in real text at the top, so that rarer words come often enough to be learnt.
_WEIGHTS = tuple(itertools.accumulate(1.0 / (rank + 15) for rank in range(len(COMMON))))


def phrase(rng: random.Random, shortest: int = 2, longest: int = 8) -> str:
    """Common words in a random order: no sentence, but the words of sentences."""
    count = rng.randint(shortest, longest)
    return " ".join(rng.choices(COMMON, cum_weights=_WEIGHTS, k=count))
