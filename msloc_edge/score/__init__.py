"""Archives of any size: films in, a dataset of scores and boxes in Parquet out, resumable wherever it was killed.

archive    what holds films -> Film, one for each: folders' films, lists, csv and Parquet manifests, tar shards
feeder     processes that decode films and hand their pixels on over shared memory
dataset    the tables, their schema, and parts that appear whole or not at all
job        what is not in the dataset yet, localized part by part; on this host, or (on_ray) on Ray Data
summary    a page of what the dataset holds
worklist   films for a radiologist to read
"""
