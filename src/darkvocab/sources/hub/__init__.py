"""Models on the Hugging Face Hub, of which only the bytes that are looked at are read, by HTTP range.

A revision is pinned to its commit once. Every answer must be of the file that the commit's listing names: by its
size, and by its ETag, the hash of its content. What arrives is kept by that hash.
The Hub's library has addresses, tokens, sessions and limits; its own transfers check none of this and keep no ranges.
"""
