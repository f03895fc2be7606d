"""Codes of countries and currencies, read whatever their case."""

import re
from functools import lru_cache
from typing import Final

# ISO 3166-1: three letters, then the two letters of the same country.
COUNTRIES: Final = """
ABWAW AFGAF AGOAO AIAAI ALAAX ALBAL ANDAD AREAE ARGAR ARMAM ASMAS ATAAQ ATFTF ATGAG AUSAU AUTAT AZEAZ BDIBI BELBE
BENBJ BESBQ BFABF BGDBD BGRBG BHRBH BHSBS BIHBA BLMBL BLRBY BLZBZ BMUBM BOLBO BRABR BRBBB BRNBN BTNBT BVTBV BWABW
CAFCF CANCA CCKCC CHECH CHLCL CHNCN CIVCI CMRCM CODCD COGCG COKCK COLCO COMKM CPVCV CRICR CUBCU CUWCW CXRCX CYMKY
CYPCY CZECZ DEUDE DJIDJ DMADM DNKDK DOMDO DZADZ ECUEC EGYEG ERIER ESHEH ESPES ESTEE ETHET FINFI FJIFJ FLKFK FRAFR
FROFO FSMFM GABGA GBRGB GEOGE GGYGG GHAGH GIBGI GINGN GLPGP GMBGM GNBGW GNQGQ GRCGR GRDGD GRLGL GTMGT GUFGF GUMGU
GUYGY HKGHK HMDHM HNDHN HRVHR HTIHT HUNHU IDNID IMNIM INDIN IOTIO IRLIE IRNIR IRQIQ ISLIS ISRIL ITAIT JAMJM JEYJE
JORJO JPNJP KAZKZ KENKE KGZKG KHMKH KIRKI KNAKN KORKR KWTKW LAOLA LBNLB LBRLR LBYLY LCALC LIELI LKALK LSOLS LTULT
LUXLU LVALV MACMO MAFMF MARMA MCOMC MDAMD MDGMG MDVMV MEXMX MHLMH MKDMK MLIML MLTMT MMRMM MNEME MNGMN MNPMP MOZMZ
MRTMR MSRMS MTQMQ MUSMU MWIMW MYSMY MYTYT NAMNA NCLNC NERNE NFKNF NGANG NICNI NIUNU NLDNL NORNO NPLNP NRUNR NZLNZ
OMNOM PAKPK PANPA PCNPN PERPE PHLPH PLWPW PNGPG POLPL PRIPR PRKKP PRTPT PRYPY PSEPS PYFPF QATQA REURE ROURO RUSRU
RWARW SAUSA SDNSD SENSN SGPSG SGSGS SHNSH SJMSJ SLBSB SLESL SLVSV SMRSM SOMSO SPMPM SRBRS SSDSS STPST SURSR SVKSK
SVNSI SWESE SWZSZ SXMSX SYCSC SYRSY TCATC TCDTD TGOTG THATH TJKTJ TKLTK TKMTM TLSTL TONTO TTOTT TUNTN TURTR TUVTV
TWNTW TZATZ UGAUG UKRUA UMIUM URYUY USAUS UZBUZ VATVA VCTVC VENVE VGBVG VIRVI VNMVN VUTVU WLFWF WSMWS YEMYE ZAFZA
ZMBZM ZWEZW
"""
ALPHA_2_BY_CODE: Final = {
    **{code[:3]: code[3:] for code in COUNTRIES.split()},
    **{code[3:]: code[3:] for code in COUNTRIES.split()},
    "UK": "GB",  # reserved for the United Kingdom, and much used
    "EL": "GR",  # the European Union's
    "XK": "XK",  # Kosovo, assigned by its users
    "XKX": "XK",
}
COUNTRY_CODES: Final = frozenset(ALPHA_2_BY_CODE.values())
UNKNOWN: Final = frozenset({"XX", "ZZ"})  # what networks and catalogues of codes name an unknown country
SUBDIVISION: Final = re.compile(r"[A-Z]{2}-[A-Z0-9]{1,3}")  # ISO 3166-2
# ISO 4217: the currencies whose minor unit is not a hundredth, by its decimals.
WITHOUT_DECIMALS: Final = """
BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF
"""
DECIMALS: Final = {
    **dict.fromkeys(WITHOUT_DECIMALS.split(), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}


@lru_cache(maxsize=4_096)
def read_country(text: str, placeholders: frozenset[str]) -> str | None:
    """The two letters of a code of two or three, also of a subdivision such as `US-CA`; other text, such as a name,
    as it is; None for a code of no country, a blank and a placeholder.

    `NA` is Namibia, although it is a placeholder of ids.
    """
    country = text.strip()
    code = country.upper()
    if SUBDIVISION.fullmatch(code):
        code = code[:2]
    if code in ALPHA_2_BY_CODE:
        return ALPHA_2_BY_CODE[code]
    return None if code in UNKNOWN or country.lower() in placeholders else country or None


@lru_cache(maxsize=4_096)
def read_currency(text: str) -> str:
    """A code of three letters in upper case; other text (points, vouchers) as it is."""
    code = text.strip().upper()
    return code if len(code) == 3 and code.isascii() and code.isalpha() else text


def count_decimals(currency: str) -> int:
    """How many decimals the minor unit of a currency has."""
    return DECIMALS.get(currency, 2)
