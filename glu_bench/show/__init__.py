"""What a person sees: tables on stdout, progress on stderr. The only room that knows rich."""
