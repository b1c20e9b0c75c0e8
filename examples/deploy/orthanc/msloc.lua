-- Sends films of stable studies to msloc-edge, which sends its objects back. Each film is sent once: its objects come
-- into the same study, which then is stable again.

local FILMS = { CR = true, DX = true }

function OnStableSeries(seriesId, tags, metadata)
  if FILMS[tags['Modality']] then
    SendToModality(seriesId, 'msloc-edge')
  end
end
