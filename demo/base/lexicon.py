"""Word lists for the generated pretraining text, written by hand: nothing is downloaded."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words("""
    Anna Ben Carla David Elena Frank Greta Hugo Irene Jonas Karin Liam Maria Noah Olga Peter Quinn
    Rosa Samuel Tina Ulrich Vera Walter Xenia Yusuf Zoe Adam Bella Chris Diana Erik Fiona George
    Hanna Ivan Julia Kevin Laura Martin Nina Oscar Paula Ralf Sara Tom Ursula Victor Wendy Amir
    Bianca Cedric Dora Emil Farah Gina Henry Isla Jack Kira Leon Mona Nils Olivia Paul Rita Simon
    Tara Umar Viola Will
""")

LAST_NAMES = _words("""
    Adler Baker Clark Diaz Evans Fischer Garcia Hansen Ito Jones Keller Lopez Meyer Novak Olsen
    Perez Quist Rossi Smith Turner Ueda Vogel Weber Xu Young Zimmer Brown Costa Dubois Ekman Ford
    Grant Hill Ivanov Jansen King Lang Moore Nolan Ortiz Park Reed Stone Tanaka Usman Vega White
    Yang
""")

CITIES = _words("""
    Berlin Paris London Madrid Rome Vienna Oslo Zurich Prague Lisbon Dublin Athens Boston Chicago
    Denver Seattle Austin Miami Toronto Sydney Tokyo Seoul Delhi Cairo Lima Bogota Warsaw Helsinki
    Munich Hamburg Geneva Porto
""")

COLOURS = _words("""
    red blue green black white grey yellow purple orange brown pink silver golden
""")

THINGS = _words("""
    laptop phone tablet camera monitor keyboard mouse printer headset speaker charger cable router
    battery lamp chair desk table sofa shelf mirror carpet pillow blanket jacket shirt shoes boots
    dress hat gloves scarf bag wallet watch ring bottle mug kettle toaster blender oven fridge
    vacuum drill hammer saw ladder bike helmet tent backpack racket ball guitar piano drum book
    notebook pen pencil stroller toy puzzle game console controller drone scale thermometer
    mattress curtain faucet heater fan
""")

MONTHS = _words("""
    January February March April May June July August September October November December
""")

DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")

# What invented names are put together from, so that copying is learnt and not the words.
SYLLABLES = _words("""
    ba be bo da de di do fa fi ga go ha ka ki ko la le lo lu ma me mi mo na ne ni no pa po ra re
    ri ro sa se so ta te ti to va vi vo wa xe ya za zo tron lex mar nor vel dex plex
""")

KEYS = _words("""
    name city item color price date id code amount total quantity phone email company invoice
    owner level reference account customer sender subject day time location product size weight
    serial booking room
""")

VERBS = _words("""
    bought sold sent received returned opened closed found lost moved fixed cleaned painted
    ordered shipped packed checked tested used borrowed
""")

ADVERBS = _words("""
    quickly slowly carefully yesterday today again finally often rarely soon later early
""")

PRAISE = _words("""
    great excellent amazing wonderful fantastic good superb perfect lovely brilliant pleasant nice
    happy delighted satisfied impressive outstanding enjoyable solid reliable beautiful smooth
    fast comfortable friendly helpful awesome charming tasty quick sturdy bright elegant flawless
    thrilled stunning superior delightful joyful fabulous terrific marvelous splendid pleased
    cheerful fresh clean handy clever gorgeous trusty
""")

BLAME = _words("""
    bad terrible awful horrible poor disappointing broken useless slow rude dirty noisy cheap ugly
    annoying faulty boring weak unreliable uncomfortable defective cracked late sad angry
    frustrating expensive leaking messy bland fragile unhappy mediocre painful upset junk trash
    worthless ridiculous nasty smelly stale rotten torn dented scratched dull gloomy hopeless
    lousy
""")

PLAIN = _words("""
    okay average ordinary standard normal acceptable typical plain regular moderate grey medium
    neutral square indoor recent English common simple
""")

LIKES = _words("love enjoy recommend adore like appreciate")

DISLIKES = _words("hate dislike regret avoid detest")

# A topic and the words by which a reader would know it.
TOPICS = {
    "sports": _words("""
        match team coach goal league striker tournament stadium referee player score season trophy
        tennis football basketball sprint marathon swimmer champion
    """),
    "weather": _words("""
        rain storm sunny cloudy wind snow thunder temperature forecast humid frost fog heatwave
        drizzle breeze hail umbrella climate chilly lightning
    """),
    "food": _words("""
        recipe bake soup cheese bread garlic onion sauce dinner lunch breakfast spicy sweet
        kitchen chef restaurant dessert pasta salad roast
    """),
    "travel": _words("""
        flight hotel airport passport luggage trip tourist beach itinerary train ticket visa
        journey resort cruise map guide departure arrival suitcase
    """),
    "music": _words("""
        song album concert melody singer band rhythm guitarist chorus lyrics orchestra violin tune
        studio playlist drummer festival bass choir remix
    """),
    "health": _words("""
        doctor patient clinic medicine fever headache therapy vaccine nurse symptom diet exercise
        surgery hospital cough allergy prescription dentist pain recovery
    """),
    "finance": _words("""
        bank loan interest stock shares budget tax mortgage savings dividend investor currency
        deposit credit debt inflation profit pension fund broker
    """),
    "school": _words("""
        teacher student homework exam classroom lesson grade university lecture campus degree
        essay pupil professor semester diploma library textbook tuition quiz
    """),
    "science": _words("""
        experiment atom molecule physics laboratory theory researcher telescope planet galaxy
        chemistry biology microscope particle hypothesis gravity energy fossil genome quantum
    """),
    "politics": _words("""
        election minister parliament vote senator policy government president campaign law treaty
        mayor party debate candidate reform ballot embassy council congress
    """),
    "cars": _words("""
        engine tyre brake gearbox diesel driver garage steering clutch mileage petrol windshield
        bumper motor highway parking mechanic sedan exhaust radiator
    """),
    "garden": _words("""
        flower soil seed plant lawn rose shovel compost hedge tulip weed watering greenhouse pot
        tree bloom rake fertilizer herb vegetable
    """),
    "pets": _words("""
        dog cat puppy kitten leash veterinarian fur collar bark hamster parrot aquarium rabbit
        litter treat paw breeder tail feed cage
    """),
    "computers": _words("""
        server software code database bug compiler network program algorithm processor memory disk
        browser script developer kernel terminal cloud backup api
    """),
    "fashion": _words("""
        dress designer runway fabric style outfit model sewing trend boutique silk denim heels
        pattern collection wardrobe tailor brand jewelry vintage
    """),
    "movies": _words("""
        film actor director scene cinema trailer plot script sequel premiere camera comedy drama
        thriller oscar screen villain studio animation hero
    """),
    "law": _words("""
        court judge lawyer trial contract verdict jury witness evidence attorney lawsuit appeal
        sentence clause statute defendant plaintiff notary settlement testimony
    """),
    "home": _words("""
        roof wall paint window floor plumbing kitchen door ceiling renovation tile rent landlord
        tenant furniture insulation chimney basement balcony doorbell
    """),
    "jobs": _words("""
        salary interview manager career resume employee office promotion hiring recruiter
        colleague overtime shift vacancy internship boss contractor workplace training meeting
    """),
    "art": _words("""
        painting sculpture gallery canvas museum artist sketch portrait brush exhibition mural
        pottery watercolor drawing curator palette statue photograph collage easel
    """),
    "telecom": _words("""
        signal roaming sim contract broadband call minutes coverage modem data plan handset
        operator landline fibre texting hotspot outage number line
    """),
    "energy": _words("""
        electricity gas meter solar panel grid heating tariff boiler battery watt supply turbine
        fuel consumption reading insulation power plant cable
    """),
    "insurance": _words("""
        policy claim premium accident damage cover insurer liability theft risk broker injury
        deductible beneficiary flood fire payout adjuster renewal excess
    """),
    "housing": _words("""
        apartment lease deposit landlord tenant broker viewing mortgage bedroom neighbour rent
        garage utility contract moving keys balcony floor agency repair
    """),
    "events": _words("""
        wedding party invitation guest venue ticket seat stage speaker conference booking catering
        birthday hall decoration programme workshop exhibition host reception
    """),
    "fitness": _words("""
        gym treadmill yoga squat trainer muscle stretch weights cardio workout pulse protein swim
        running cycling membership locker towel coach session
    """),
    "books": _words("""
        author chapter page publisher paperback library plot poem cover edition reader series
        biography novel index translation shelf margin preface manuscript
    """),
}

# What a number says, as a sign and as a code.
CURRENCIES = {"$": "USD", "€": "EUR", "£": "GBP"}

# Phrases around the point of a message, to be read over.
FILLERS = (
    "Hope all is well.",
    "Warm greetings,",
    "Talk soon.",
    "Many thanks and all the best.",
    "Good evening,",
    "Sorry to bother you.",
    "I have been here for years.",
    "By the way, nice garden.",
    "Have a great weekend.",
    "Greetings from the coast,",
    "so anyway",
    "well",
    "one more thing",
    "I was wondering",
    "as I said before",
)
