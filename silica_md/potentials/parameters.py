"""Published parameters of the pair potentials, each with its citation.

Energies eV, distances Å, charges e, unless a table says otherwise. Pairs are keyed by element symbols in
alphabetical order. The numbers are facts of the papers cited and were compared with independent copies of
them; where a copy differs, a comment says so.
"""

SHIK = {
    "citation": (
        "S. Sundararaman, L. Huang, S. Ispas, W. Kob, J. Chem. Phys. 148 (2018) 194504 (silica); "
        "J. Chem. Phys. 150 (2019) 154505 (alkali silicates)"
    ),
    "charges": {"Si": 1.7755, "Na": 0.6018},  # oxygen follows from neutrality
    "short_range_cutoff": 8.0,
    "coulomb_cutoff": 10.0,
    "width": 0.2,
    # A exp(−B r) − C/r⁶ + D/r²⁴, shifted to zero at the short-range cutoff and switched off smoothly there
    "pairs": {
        ("O", "O"): {"A": 1120.528996, "B": 2.892741833, "C": 26.13207696, "D": 16800.0},
        ("O", "Si"): {"A": 23107.84764, "B": 5.097856735, "C": 139.6947857, "D": 66.0},
        ("Si", "Si"): {"A": 2797.979165, "B": 4.407320018, "C": 0.0, "D": 3423204.0},
        ("Na", "O"): {"A": 1127566.0, "B": 6.8986, "C": 40.562, "D": 16800.0},
        ("Na", "Si"): {"A": 495653.0, "B": 5.4151, "C": 0.0, "D": 16800.0},
        ("Na", "Na"): {"A": 1476.9, "B": 3.4075, "C": 0.0, "D": 16800.0},
    },
}

BKS = {
    "citation": (
        "B. W. H. van Beest, G. J. Kramer, R. A. van Santen, Phys. Rev. Lett. 64 (1990) 1955; "
        "30–6 repair: I. Saika-Voivod, F. Sciortino, P. H. Poole, Phys. Rev. E 69 (2004) 041503"
    ),
    "charges": {"Si": 2.4, "O": -1.2},
    # A exp(−b r) − C/r⁶; silicon pairs are Coulomb only
    "pairs": {
        ("O", "O"): {"A": 1388.773, "b": 2.76, "C": 175.0},
        ("O", "Si"): {"A": 18003.7572, "b": 4.87318, "C": 133.5381},
    },
    # one public force field carries these two rows under swapped labels
    "repair": {
        ("O", "O"): {"epsilon": 0.00105105048, "sigma": 1.779239},
        ("O", "Si"): {"epsilon": 0.003097948, "sigma": 1.313635},
    },
}

PMMCS = {
    "citation": ("A. Pedone, G. Malavasi, M. C. Menziani, A. N. Cormack, U. Segre, J. Phys. Chem. B 110 (2006) 11780"),
    "charges": {"Si": 2.4, "Na": 0.6, "O": -1.2},
    # Morse bond and C/r¹²; cations see each other by their charge only
    "pairs": {
        ("O", "Si"): {"D": 0.340554, "a": 2.0067, "r0": 2.1, "C": 1.0},
        ("Na", "O"): {"D": 0.023363, "a": 1.763867, "r0": 3.006315, "C": 5.0},
        ("O", "O"): {"D": 0.042395, "a": 1.379316, "r0": 3.618701, "C": 22.0},
    },
}

LIU2019 = {
    "citation": "H. Liu et al., Machine learning forcefield for silicate glasses, arXiv:1902.03486 (2019)",
    "charges": {"Si": 1.954952037, "O": -0.977476019},
    "alpha": 0.25,
    "cutoff": 8.0,
    # A exp(−r/ρ) + C6/r⁶ + D24/r²⁴ in kcal/mol, with this Coulomb constant in kcal/mol·Å
    "coulomb_kcal_per_mol": 332.06371,
    "pairs": {
        ("O", "Si"): {"A": 471671.1243, "rho": 0.19173537, "C6": -2156.074422, "D24": 668.7557239},
        ("O", "O"): {"A": 23138.64826, "rho": 0.356855265, "C6": -1879.223108, "D24": 2605.841269},
        ("Si", "Si"): {"A": 0.0, "rho": 1.0, "C6": 0.0, "D24": 78940848.06},
    },
}
