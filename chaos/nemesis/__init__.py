"""What breaks a cluster.

``vocabulary`` names the classes of fault, ``plan`` is the file that lists some, ``packages`` draws
plans from a seed, ``injectors`` carry a fault out on processes, ``runner`` carries out a plan.
"""
